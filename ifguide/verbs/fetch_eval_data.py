"""``ifguide fetch-eval-data``."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.errors import InputError

SUMMARY = "Write the evaluation sets as local JSON Lines, once; evaluation with IFGUIDE_EVAL_DATA=DIR needs no network."
EXAMPLE = "ifguide fetch-eval-data --output eval-data --source bold=bold.jsonl rtp=prompts.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write; created if missing")
    parser.add_argument(
        "--source", nargs="+", default=["hub"], metavar="hub|NAME=FILE",
        help="the Hugging Face hub (all sets), or JSON Lines files in the published layout or in the local form; "
        "NAME: rtp, bold, attaq, lambada, heldout (default: hub)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.eval_data import fetch

    report = fetch(args.output, _sources(args.source))
    if not args.json:
        for name, said in report.items():
            blank = f"; blank prompts left out: {said['blank']}" if said["blank"] else ""
            print(f"{args.output}/{name}.jsonl: {said['records']} records from {said['source']}{blank}")
    return {"output": str(args.output), "sets": report}


def _sources(given: list[str]) -> dict[str, str] | None:
    if given == ["hub"]:
        return None
    sources: dict[str, str] = {}
    for item in given:
        name, equals, file = item.partition("=")
        if not equals or not file or name in sources:
            raise InputError(f"--source '{item}': give hub alone, or NAME=FILE with every NAME once")
        sources[name] = file
    return sources
