"""``ifguide validate-scores``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ifguide.config.options import named, options_of
from ifguide.system.files import read_json
from ifguide.system.outputs import Source
from ifguide.validation.options import ValidateScores
from ifguide.verbs.writes import Writes, folder, source

SUMMARY = "Find out whether scores say what training does: train again without tokens, and compare with their scores."
EXAMPLE = (
    "ifguide validate-scores --method lds --scores data/scores --run checkpoints/base \\\n"
    "    --toxic-queries toxic_queries.jsonl --safe-queries safe_queries.jsonl \\\n"
    "    --against classifier=data/suspects --output validation/lds"
)


OPTIONS = ValidateScores
WRITES = Writes(
    lambda args: (
        None if args.dry_run else folder(args.output, "run.json", ["results.json", "report.html"], ["trained", "work"])
    ),
    named(ValidateScores),
    sources=lambda args: {f"--{flag}": _named(getattr(args, flag)) for flag in ("against", "mask")},
    result=lambda args, record: read_json(Path(args.output) / "results.json", "results"),
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.system.processes import keep_freed_memory
    from ifguide.validation.job import plan_lines, validate_scores

    keep_freed_memory()
    asked = options_of(args, ValidateScores)
    results = validate_scores(asked, quiet=False)
    if args.json:
        return results
    if asked.dry_run:
        print("\n".join(plan_lines(results)))
        return results
    from ifguide.validation.report import results_table

    print(results_table(results))
    if warning := results.get("warning"):
        print(warning)
    print(f"\nreport: {asked.output}/report.html   numbers: {asked.output}/results.json")
    return results


def _named(given: list[str]) -> list[Source]:
    """What the paths of ``NAME=PREFIX`` hold; a wrong one is told by the verb."""
    return [source(text.partition("=")[2]) for text in given if text.partition("=")[2]]
