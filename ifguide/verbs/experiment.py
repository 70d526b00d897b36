"""``ifguide experiment``: every method of a plan on the same data, with one evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of
from ifguide.system.files import read_json
from ifguide.system.outputs import Output, Source
from ifguide.verbs.writes import Writes, folder, source

SUMMARY = (
    "Run a plan: methods, seeds, settings and corpora as commands of this program, judged by one evaluation. A killed "
    "run goes on where it stopped; a stage that fails is told, and the rest goes on."
)
EXAMPLE = (
    "ifguide experiment configs/experiments/quick.yml --output runs/quick --jobs 2\n"
    "  ifguide experiment plan.yml --output runs/plan --dry-run   (what will run, and how long)"
)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The options of this verb."""

    plan: str = option(flags=["plan"], metavar="PLAN", help="YAML file, see docs/experiments.md")
    output: str = option(metavar="DIR", kind="output", help="folder for everything; a second call resumes there")
    jobs: int = option(1, metavar="N", kind="cost", help="stages at the same time (default: 1)")
    set: Sequence[str] = option(
        (), nargs="+", action="extend", metavar="KEY=VALUE",  # a second --set adds to the first
        help="change the plan: its key with dots, and YAML; as in seeds=[1] corpora.main.text=texts.jsonl",
    )  # fmt: skip
    only: Sequence[str] = option((), metavar="METHOD", help="these methods alone, and those that they build on")
    without: Sequence[str] = option((), metavar="METHOD", help="leave these methods out")
    dry_run: bool = option(
        False, kind="cost", help="print what will run and how long it takes, measured or guessed; write nothing"
    )  # fmt: skip


OPTIONS = Experiment


def _output(args: argparse.Namespace) -> Output | None:
    """The folder; it is finished when the record is there, and all that the stages made."""
    if args.dry_run:
        return None
    stages = Path(args.output) / "stages.json"
    known = read_json(stages, "stage record") if stages.is_file() else {}
    made = [name for stage in known.values() for name in stage["outputs"]] if isinstance(known, dict) else []
    return folder(args.output, "run.json", ["results.json", "report.html", *made], ["stages.json"])


def _sources(args: argparse.Namespace) -> dict[str, list[Source]]:
    """The plan, and every file that it names."""
    plan, *files = _plan(args).files()
    return {"PLAN": [source(plan)], "files of the plan": [source(path) for path in files]}


WRITES = Writes(
    _output,
    named(Experiment),
    sources=_sources,
    settle=lambda args, settings: settings.pop("PLAN", None),
    result=lambda args, record: read_json(Path(args.output) / "results.json", "results"),
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import InputError
    from ifguide.experiments.plans.job import PlanJob
    from ifguide.verbs import make_parser

    def say(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    asked = options_of(args, Experiment)
    plan = _plan(args)
    job = PlanJob(plan, Path(asked.output), asked.jobs, say, make_parser)
    if asked.dry_run:
        found = job.preview()
        if not args.json:
            from ifguide.pages.experiment.text import preview_text

            print(preview_text(found))
        return found
    if plan.planned:
        raise InputError(
            f"{plan.path} is a plan that nobody has run: {plan.planned}; --dry-run shows what it would take, and --set "
            "planned=false runs it"
        )
    results = job.run()
    if not args.json:
        from ifguide.pages.experiment.text import results_text

        print(results_text(results))
        print(f"\nreport: {Path(asked.output) / 'report.html'}   numbers: {Path(asked.output) / 'results.json'}")
    return results


def exit_code(result: dict[str, Any]) -> int:
    """1 where a cell has no numbers."""
    return 1 if result.get("failed") else 0


def _plan(args: argparse.Namespace) -> Any:
    from ifguide.experiments.plans.reading import read_plan

    return read_plan(Path(args.plan), args.set, args.only, args.without)
