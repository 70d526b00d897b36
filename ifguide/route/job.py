"""A route from text to mask, step by step: what is there is kept, what was stopped goes on.

In the output folder: ``corpus_text_document``, ``classifier/``, ``suspects``, ``factors/``, ``scores``, ``mask``,
``statistics/``, ``mask.html``, then ``commands.sh``, ``data.yml``, ``penalty.yml``, and ``run.json`` last of all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ifguide.errors import ConfigError, IFGuideError, InputError, first_faults
from ifguide.requirements.needs import NEEDS, how_to_install
from ifguide.requirements.ranges import installed
from ifguide.route.ending import penalty_lines, train_command, write_yaml
from ifguide.route.faults import input_faults
from ifguide.route.options import RouteOptions
from ifguide.route.steps import CLASSIFIER, MASK, PAGE, STATISTICS, Step, data_of, steps_of
from ifguide.system.files import read_json, write_text
from ifguide.system.outputs import NEW, REPLACED, SAME, UNFINISHED, refusal
from ifguide.system.progress import clock

SCRIPT, MASK_FINGERPRINT = "commands.sh", "mask_fingerprint"
_TO_RUN, _KEPT, _NOT_NEEDED = "to run", "kept", "not needed"
_LATER = "there; kept if what it reads comes out the same"
_SAID = {NEW: _TO_RUN, UNFINISHED: "to go on", SAME: _KEPT}
_INTERRUPTED = 130
_WEAK_CLASSIFIER = 0.75


@dataclass(frozen=True)
class Commands:
    """The commands of this program, which lie above this room.

    Attributes:
        parser: verb -> the parser of its options.
        state: verb, its options -> what lies where it would write, and what differs (`ifguide.system.outputs.look`);
            None of a verb that writes nothing.
        run: a verb with its options -> the exit code; it tells its own faults.
    """

    parser: Callable[[str], argparse.ArgumentParser]
    state: Callable[[str, Sequence[str]], tuple[str, list[str]] | None]
    run: Callable[[str, Sequence[str]], int]


class Route:
    """One route in one folder.

    Args:
        overwrite: what another command made may be replaced.
        out: gets what is said.
    """

    def __init__(self, asked: RouteOptions, commands: Commands, overwrite: bool, out: TextIO):
        self.asked, self.steps = asked, steps_of(asked)
        self._commands, self._overwrite, self._out = commands, overwrite, out

    def preview(self) -> dict[str, Any]:
        """Every command, and what of it exists.

        Returns:
            ``output``, ``steps`` (``verb``, ``what``, ``state`` and ``command`` of each), and what the route ends with:
            ``data``, ``mask``, ``page``, ``statistics``, ``yaml``, ``train``.

        Raises:
            ConfigError: the inputs have faults; all of them.
        """
        self._check()
        rows = []
        states: dict[str, str] = {}
        for step in self.steps:
            states[step.verb] = said = self._said(step, states)
            rows.append({"verb": step.verb, "what": step.what, "state": said, "command": step.command})
        return {"output": str(self.asked.output), "steps": rows, **self._ending()}

    def run(self) -> dict[str, Any]:
        """Run what is not there.

        Returns:
            What ``run.json`` holds of it: as `preview`, but each of ``steps`` with ``seconds`` in place of ``what``,
            and of the mask ``selected`` (tokens) and ``fraction`` (of all tokens).

        Raises:
            ConfigError: the inputs have faults, before anything is written; all of them.
            IFGuideError: a step failed; those before it are kept.
        """
        self._check()
        began = time.monotonic()
        try:
            self.asked.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--output {self.asked.output}: cannot be made ({error.strerror})") from None
        write_text(self.asked.output / SCRIPT, self.script())
        rows = []
        for number, step in enumerate(self.steps, 1):
            started = time.monotonic()
            state = self._do(step, f"[{number}/{len(self.steps)}] {step.verb}: {step.what}")
            seconds = round(time.monotonic() - started, 2)
            rows.append({"verb": step.verb, "command": step.command, "state": state, "seconds": seconds})
            if step.verb == "train-classifier":
                self._warn()
        write_yaml(self.asked)
        return self._finish(rows, time.monotonic() - began)

    def script(self) -> str:
        """The commands as a shell script, for the folder that this one is typed in."""
        lines = ["#!/bin/sh", "# The steps of `ifguide mask`, one by one. Each keeps what is there already.", "set -eu"]
        return "\n".join([*lines, *(step.command for step in self.steps), ""])

    def _check(self) -> None:
        """
        Raises:
            ConfigError: inputs, options, packages or earlier products that cannot be used.
        """
        faults = input_faults(self.asked)
        needed = {name for step in self.steps for name in NEEDS[step.verb].always}
        absent = sorted(name for name in needed if installed(name) is None)
        if absent:
            faults.append(f"needs {', '.join(absent)}, not installed here; {how_to_install(absent)}")
        for step in self.steps:
            faults += self._misparsed(step)
        if not faults:
            faults = self._taken()
        if faults:
            raise ConfigError(first_faults(list(dict.fromkeys(faults))))

    def _misparsed(self, step: Step) -> list[str]:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                self._commands.parser(step.verb).parse_args(list(step.arguments))
        except SystemExit:
            return [f"{step.verb}: {said.getvalue().strip().splitlines()[-1]}"]
        return []

    def _taken(self) -> list[str]:
        """Products of other commands in the places of this one's, as far as that can be known before it runs."""
        faults = []
        states: dict[str, str] = {}
        for step in self.steps:
            settled = all(states.get(verb, SAME) == SAME for verb in step.reads)
            found = self._commands.state(step.verb, step.arguments)
            states[step.verb] = found[0] if found else SAME
            if found and settled and found[0] == REPLACED and not self._overwrite:
                faults.append(f"{step.verb}: {refusal(self._product(step), found[1])}")
        return faults

    def _said(self, step: Step, before: dict[str, str]) -> str:
        if self._is_idle(step):
            return _NOT_NEEDED
        found = self._commands.state(step.verb, step.arguments)
        if found is None or found[0] == NEW:
            return _TO_RUN
        if any(before.get(verb, _KEPT) != _KEPT for verb in step.reads):
            return _LATER
        return _SAID.get(found[0], "to be replaced")

    def _is_idle(self, step: Step) -> bool:
        """Whether ``step`` serves others only, and what those make is there."""
        served = [one for one in self.steps if one.verb in step.serves]
        states = (self._commands.state(one.verb, one.arguments) for one in served)
        return bool(served) and all(found is not None and found[0] == SAME for found in states)

    def _do(self, step: Step, title: str) -> str:
        """Run ``step`` unless what it makes is there; returns what became of it.

        Raises:
            MismatchError: another command's product is in its place.
            IFGuideError: it failed.
        """
        if self._is_idle(step):
            self._say(f"{title}: not needed, all of it is there")
            return _NOT_NEEDED
        found = self._commands.state(step.verb, step.arguments)
        if found and found[0] == SAME:
            self._say(f"{title}: kept")
            return _KEPT
        again = found is not None and found[0] == REPLACED
        if found and again and not self._overwrite:
            raise refusal(self._product(step), found[1])
        self._say(title)
        started = time.monotonic()
        said = _Indented(self._out, step.shows)
        with contextlib.redirect_stdout(said):  # type: ignore[type-var]
            code = self._commands.run(step.verb, [*step.arguments, *(["--overwrite"] if again else [])])
        said.end(whole=code != 0)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise IFGuideError(
                f"stopped at {step.verb} (exit {code}); what it said stands above, and the steps before it are kept: "
                "mend that and run the same command again"
            )
        self._say(f"  done in {clock(time.monotonic() - started)}")
        return "done"

    def _warn(self) -> None:
        """Say it where the classifier hardly tells the queries apart: then it does not know where abuse is."""
        report = read_json(self.asked.output / CLASSIFIER / "config.json", "classifier")["report"]
        if report["roc_auc"] < _WEAK_CLASSIFIER:
            self._say(
                f"  warning: the classifier hardly tells the queries apart (ROC-AUC {report['roc_auc']:.2f}), so the "
                "spans that it suspects mean little; give more queries, or take --recipe influence"
            )

    def _product(self, step: Step) -> str:
        """What the step makes, as its command names it."""
        words = list(step.arguments)
        flag = next(name for name in ("--output", "--output-prefix", "--html") if name in words)
        return words[words.index(flag) + 1]

    def _ending(self) -> dict[str, Any]:
        asked = self.asked
        return {
            "data": data_of(asked), "mask": str(asked.output / MASK), "page": str(asked.output / PAGE),
            "statistics": str(asked.output / STATISTICS), "yaml": penalty_lines(asked), "train": train_command(asked),
        }  # fmt: skip

    def _finish(self, rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        """Write ``run.json``: it says that everything is there."""
        from ifguide.system.provenance import write_run_record

        made = read_json(Path(f"{self.asked.output / MASK}.json"), "record of the mask")
        counts = {key: made["result"][key] for key in ("selected", "fraction") if key in made.get("result", {})}
        result = {"output": str(self.asked.output), "steps": rows, **counts, **self._ending()}
        known = {MASK_FINGERPRINT: made.get("fingerprint"), "seconds": round(seconds, 2)}
        write_run_record(self.asked.output, **result, **known)
        return result

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def mask_fault(output: Path) -> str | None:
    """How the mask in ``output`` is not the one that its ``run.json`` speaks of; None where it is, or is not there.

    Raises:
        InputError: a record cannot be read.
    """
    sidecar = Path(f"{output / MASK}.json")
    if not sidecar.is_file():
        return None
    recorded = read_json(output / "run.json", "run record").get(MASK_FINGERPRINT)
    if read_json(sidecar, "record of the mask").get("fingerprint") == recorded:
        return None
    return f"{output / MASK} is no longer the mask that it made"


class _Indented(io.TextIOBase):
    """Puts the lines of a step below its title.

    Args:
        shows: as `Step` has it; where it is a number, nothing is written before `end`.
    """

    def __init__(self, out: TextIO, shows: int | None):
        self._to, self._shows, self._kept, self._at_start = out, shows, "", True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._to, "encoding", None) or sys.getdefaultencoding()

    def write(self, text: str) -> int:
        if self._shows is not None:
            self._kept += text
            return len(text)
        for line in text.splitlines(keepends=True):
            self._to.write(f"  {line}" if self._at_start else line)
            self._at_start = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._to.flush()

    def end(self, whole: bool) -> None:
        """Write what was kept, or those lines of it that are asked for."""
        shows, self._shows = self._shows, None
        lines = [line for line in self._kept.splitlines() if line.strip()]
        if not whole and shows is not None:
            lines = lines[:shows] if shows > 0 else lines[shows:]
        self.write("".join(f"{line}\n" for line in lines))
