"""``ifguide mask``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ifguide.config.options import named, options_of
from ifguide.route.options import RouteOptions
from ifguide.system.outputs import Output
from ifguide.verbs.writes import Writes, dataset_fault, folder

SUMMARY = (
    "From text to mask by one command: preprocess, train-classifier, plan, score-text, fit-factors, score, build-mask, "
    "verify, mask-stats and inspect. It goes on where it was stopped, and prints each command, to be run alone."
)
EXAMPLE = (
    "ifguide mask --input corpus.jsonl --model runs/proxy/hf --toxic-queries toxic.jsonl --safe-queries safe.jsonl \\\n"
    "      --output runs/mask\n"
    "  ifguide mask ... --dry-run   (the commands, and what exists already)"
)
OPTIONS = RouteOptions


def _output(args: argparse.Namespace) -> Output | None:
    """The folder; it is finished when the record is there, and the mask that it speaks of."""
    if args.dry_run:
        return None
    made = ["penalty.yml", "data.yml", "commands.sh"]
    if (args.output / "run.json").exists():  # before that, what lies there may be of the single commands
        made += ["mask.bin", "mask.idx", "mask.json", "mask.html"]
    return replace(folder(args.output, "run.json", made, ["commands.sh"]), fault=lambda record: _fault(args.output))


WRITES = Writes(_output, named(RouteOptions), result=lambda args, record: _kept(record))


def _fault(output: Path) -> str | None:
    from ifguide.route.job import mask_fault

    return dataset_fault(output / "mask.json") or mask_fault(output)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.route.job import Commands, Route
    from ifguide.verbs import make_parser
    from ifguide.verbs.run import run_verb, state_of

    out = sys.stderr if args.json else sys.stdout
    asked = options_of(args, RouteOptions)
    route = Route(asked, Commands(make_parser, state_of, run_verb), args.overwrite, out)
    if asked.dry_run:
        found = route.preview()
        if not args.json:
            for number, step in enumerate(found["steps"], 1):
                print(f"# {number}. {step['what']}: {step['state']}\n{step['command']}")
        return found
    result = route.run()
    if not args.json:
        _tell(result)
    return result


def _tell(result: dict[str, Any]) -> None:
    if "selected" in result:
        share = f": {result['selected']:,} tokens selected ({result['fraction']:.2%})"
    else:
        share = ""
    print(f"\n{result['mask']}{share}")
    print(f"look at it: {result['page']}   numbers: {result['statistics']}   commands: {result['output']}/commands.sh")
    print(f"\nYAML for GPT-NeoX, as in {result['output']}/penalty.yml:")
    print("\n".join(f"  {line}" for line in result["yaml"]))
    print(f"train: {result['train']}")


def _kept(record: dict[str, Any]) -> dict[str, Any]:
    names = ("output", "steps", "selected", "fraction", "data", "mask", "page", "statistics", "yaml", "train")
    return {name: record[name] for name in names if name in record}
