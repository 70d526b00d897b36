"""Stages whose outputs are kept: a second call resumes, a changed input redoes what depends on it.

A stage is known by a key: a hash of its name, its settings and the keys of the stages it needs. It is
skipped when the recorded key is the same and its outputs are the very files it wrote (size and time).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ifguide
from ifguide.system.files import hash_value, read_json, write_json


@dataclass(frozen=True)
class Stage:
    """One step of a job.

    Attributes:
        name: shown to the user and key of ``seconds`` in the results.
        work: does it; returns a JSON-able summary. Runs only when nothing usable is recorded.
        settings: everything besides the needed stages that can change the outputs.
        needs: names of the stages whose outputs this one reads.
        outputs: files it writes, relative to the folder.
    """

    name: str
    work: Callable[[], dict[str, Any] | None]
    settings: dict[str, Any]
    needs: Sequence[str] = ()
    outputs: Sequence[str] = ()


class Stages:
    """Runs stages in ``folder`` and remembers them in ``stages.json``."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.folder, self._say = folder, say
        self._path = folder / "stages.json"
        self._records: dict[str, Any] = read_json(self._path, "stage record") if self._path.exists() else {}
        self._keys: dict[str, str] = {}
        self._lock = threading.Lock()
        self.failed: str | None = None  # name of the stage whose exception is on its way

    def kept(self, stage: Stage) -> dict[str, Any] | None:
        """The record of a stage that would be kept, with its ``summary`` and ``seconds``; None of one that would run.

        What it needs must have been asked for, or run, before.
        """
        key = hash_value([ifguide.__version__, stage.name, stage.settings, [self._keys[name] for name in stage.needs]])
        self._keys[stage.name] = key
        record = self._records.get(stage.name)
        return record if record and record["key"] == key and record["outputs"] == self._states(stage) else None

    def was_run(self, name: str) -> bool:
        """Whether a stage of this name was finished here before, whatever became of it."""
        return name in self._records

    @property
    def records(self) -> dict[str, Any]:
        """What is known of every stage that was ever finished here, by name."""
        return dict(self._records)

    def run(self, stage: Stage) -> dict[str, Any]:
        """The stage's summary, from its record or by running it."""
        record = self.kept(stage)
        if record:
            self._say(f"{stage.name}: kept ({record['seconds']:.0f} s when it ran)")
            return record["summary"]
        self._say(f"{stage.name} ...")
        started = time.monotonic()
        try:
            summary = stage.work() or {}
        except BaseException:
            self.failed = stage.name
            raise
        seconds = round(time.monotonic() - started, 2)
        with self._lock:
            self._records[stage.name] = {
                "key": self._keys[stage.name],
                "seconds": seconds,
                "outputs": self._states(stage),
                "summary": summary,
            }
            write_json(self._path, self._records)
        self._say(f"{stage.name}: {seconds:.0f} s")
        return summary

    def run_together(self, stages: Sequence[Stage]) -> list[dict[str, Any]]:
        """Run independent stages at the same time; the first failure is raised after all have ended."""
        results: list[dict[str, Any]] = [{} for _ in stages]
        failures: list[tuple[str, BaseException]] = []

        def target(index: int) -> None:
            try:
                results[index] = self.run(stages[index])
            except BaseException as error:  # handed to the caller's thread below
                failures.append((stages[index].name, error))

        threads = [threading.Thread(target=target, args=(index,)) for index in range(len(stages))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            self.failed, error = failures[0]
            raise error
        return results

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that each stage of this call took when it ran."""
        return {name: self._records[name]["seconds"] for name in self._keys if name in self._records}

    def _states(self, stage: Stage) -> dict[str, list[int] | None]:
        states: dict[str, list[int] | None] = {}
        for name in stage.outputs:
            path = self.folder / name
            status = path.stat() if path.exists() else None
            states[name] = [status.st_size, status.st_mtime_ns] if status else None
        return states
