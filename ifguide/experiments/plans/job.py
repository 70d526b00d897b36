"""A plan as a job: its stages planned, estimated, run, and their numbers and page written.

In the output folder:
  made/         what commands make, a folder each, named by what it is
  models/       the trained models; configs/, checkpoints/ and logs/ of their trainings
  logs/         what every command said
  stages.json   what is finished
  results.json, report.html, run.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.errors import ConfigError, InputError, first_faults
from ifguide.evaluation.metrics import worst_continuation
from ifguide.experiments.graph import DONE, FAILED, KEPT, SKIPPED, Outcome, run_tasks
from ifguide.experiments.plans.commands import Commands
from ifguide.experiments.plans.estimate import GUESSED, Estimate, estimates, wall_seconds
from ifguide.experiments.plans.plan import Plan
from ifguide.experiments.plans.recipes import Ready, Recipes
from ifguide.experiments.plans.results import generations_file, results_of
from ifguide.experiments.plans.texts import CLASSIFIER
from ifguide.experiments.stages import Stages
from ifguide.system.children import Children
from ifguide.system.files import hash_unchanged, read_jsonl, write_json, write_text
from ifguide.system.locks import only_writer
from ifguide.system.processes import usable_cores

RESULTS, PAGE, STAGES = "results.json", "report.html", "stages.json"
_SHOWN_PROMPTS = 12

Parser = Callable[[str], argparse.ArgumentParser]


@dataclass(frozen=True)
class _Planned:
    """All stages of a plan.

    Attributes:
        cells: what is judged, with its stages.
        commands: the stages by name.
    """

    cells: list[Ready]
    commands: Commands


class PlanJob:
    """One plan in one folder.

    Args:
        jobs: stages at the same time.
        say: hears of every stage.
        parser: verb -> the parser of its options, which lie above this room.

    Raises:
        InputError: a command that cannot be meant, before anything runs; all of them.
    """

    def __init__(self, plan: Plan, output: Path, jobs: int, say: Callable[[str], None], parser: Parser):
        if jobs < 1:
            raise InputError(f"--jobs {jobs}: must be at least 1")
        self.plan, self.folder, self.jobs, self._say = plan, output.absolute(), jobs, say
        self.stages = Stages(self.folder, say)
        self.children = Children(max(1, usable_cores() // jobs))
        commands = Commands(self.folder, self.stages, self.children, say)
        recipes = Recipes(plan, commands)
        self._planned = _Planned([recipes.ready(cell) for cell in plan.cells()], commands)
        _check(commands.verbs, parser)

    def preview(self) -> dict[str, Any]:
        """What would run, and how long it would take."""
        tasks = self._planned.commands.tasks
        found = estimates(tasks, self.stages)
        return {
            "stages": [
                {
                    "stage": name,
                    "state": "kept" if found[name] is None else "to run",
                    "command": task.command,
                    **_estimate(found[name]),
                }
                for name, task in tasks.items()
            ],
            "cells": len(self._planned.cells),
            "seconds": round(sum(estimate.seconds for estimate in found.values() if estimate)),
            "wall_seconds": round(wall_seconds(tasks, found, self.jobs)),
            "jobs": self.jobs,
            "guessed": sum(estimate is not None and estimate.basis == GUESSED for estimate in found.values()),
        }

    def run(self) -> dict[str, Any]:
        """Run what is not kept; returns what ``results.json`` holds.

        Raises:
            InputError: the folder cannot be written, or another process does; a judge that cannot be used.
        """
        started = time.monotonic()
        self._check_judges()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--output {self.folder}: cannot be made ({error.strerror}); choose another folder"
            ) from None
        commands = self._planned.commands
        with only_writer(self.folder / STAGES):
            outcomes = run_tasks(commands.tasks, self.stages, self.jobs, self._say, self.children.end)
            results = results_of(self.plan, self._planned.cells, commands, outcomes, self.folder)
            results["seconds"] = self.stages.seconds
            results["stages"] = _counts(outcomes)
            write_json(self.folder / RESULTS, results)
            self._page(results)
            if not results["failed"]:
                self._record(time.monotonic() - started)
        return results

    def _check_judges(self) -> None:
        """Load every judge of the plan's own once: they are used at the very end, and a mistake must not wait for that.

        Raises:
            InputError: one cannot be used.
        """
        tasks = self._planned.commands.tasks
        if all(self.stages.kept(task.stage) is not None for task in tasks.values()):
            return
        from ifguide.scorers.registry import load_scorer

        for spec in self.plan.evaluation.scorers:
            if spec not in (CLASSIFIER, "judge"):
                load_scorer(spec)

    def _page(self, results: dict[str, Any]) -> None:
        from ifguide.pages.experiment.page import experiment_page

        write_text(self.folder / PAGE, experiment_page(results, self._said(results)))

    def _said(self, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Prompts evenly spaced over the first corpus, with the worst continuation of each method's first seed."""
        rows: dict[str, dict[str, Any]] = {}
        corpus = next(iter(self.plan.corpora))
        seed = self.plan.seeds[0]
        for ready in self._planned.cells:
            label = self.plan.label(ready.cell)
            there = str(seed) in results["methods"][label]["seeds"]
            if ready.cell.corpus != corpus or ready.cell.seed != seed or not there:
                continue
            for row in read_jsonl(generations_file(self.folder, ready.judge)):
                scores = next(iter(row["scores"].values()))
                about = {"subset": row["subset"], "prompt": row["prompt"], "said": {}}
                shown = rows.setdefault(str(row["id"]), about)
                shown["said"][label] = worst_continuation(row["continuations"], scores)
        found = list(rows.values())
        step = max(1, len(found) // _SHOWN_PROMPTS)
        return found[::step][:_SHOWN_PROMPTS]

    def _record(self, seconds: float) -> None:
        """Write ``run.json``, last of all: it says that everything is there."""
        from ifguide.system.provenance import write_run_record

        files = [path for path in self.plan.files() if path.is_file()]
        write_run_record(
            self.folder,
            plan=str(self.plan.path),
            stages=self.stages.seconds,
            seconds_of_this_call=round(seconds, 2),
            inputs={str(path): hash_unchanged(path) for path in files},
        )


def _check(verbs: Mapping[str, Sequence[str]], parser: Parser) -> None:
    """
    Raises:
        ConfigError: commands whose options their verbs do not know.
    """
    faults = []
    for name, (verb, *arguments) in verbs.items():
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                parser(verb).parse_args(arguments)
        except SystemExit:
            faults.append(f"{name}: {said.getvalue().strip().splitlines()[-1]}")
    if faults:
        raise ConfigError(first_faults(faults))


def _estimate(found: Estimate | None) -> dict[str, Any]:
    return {} if found is None else {"seconds": round(found.seconds, 1), "basis": found.basis}


def _counts(outcomes: Mapping[str, Outcome]) -> dict[str, int]:
    states = [outcome.state for outcome in outcomes.values()]
    return {state: states.count(state) for state in (DONE, KEPT, FAILED, SKIPPED)}
