"""``ifguide score-generations``: continuations -> toxicity scores."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, jsonl_with_sidecar

SUMMARY = (
    "Score every continuation of a file, with one classifier or several. A killed run goes on where it stopped when "
    "the same command is given again, and writes the same file."
)
EXAMPLE = (
    "ifguide score-generations --generations generations.jsonl --scorer detoxify:unbiased \\\n"
    "      --scorer toxigen-roberta --output scored.jsonl"
)


WRITES = Writes(
    # a file that is scored in place is its own input: nothing of it is lost
    lambda args: None if _in_place(args) else jsonl_with_sidecar(args.output),
    Named(inputs=("generations",), outputs=("output",), scorers=("scorer",), costs=("device",)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generations", required=True, metavar="FILE", help='JSONL with "continuations"')
    parser.add_argument(
        "--scorer",
        required=True,
        action="append",
        metavar="SPEC",
        help="detoxify:unbiased, toxigen-roberta, hf:FOLDER#LABEL, linear:FOLDER, lexicon; give it again for more",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="JSONL to write; FILE.json states how")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: auto)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.scored_generations import score_generations
    from ifguide.models.devices import choose_device
    from ifguide.pages.evaluation_table import warnings_of

    result = score_generations(
        args.generations, args.scorer, args.output, device=choose_device(args.device), progress=True
    )
    if not args.json:
        print(f"{result['output']}: {result['texts']} continuations of {result['prompts']} prompts")
        for warning in warnings_of(result["scorers"]):
            print(warning)
        for name, found in result["results"].items():
            numbers = "" if found["emt"] is None else f"EMT {found['emt']:.4f}, TP {found['tp']:.4f}, "
            print(f"{name}: {numbers}{found['truncated']} texts cut to the classifier's length")
    return result


def _in_place(args: argparse.Namespace) -> bool:
    from pathlib import Path

    return Path(args.generations).resolve() == Path(args.output).resolve()
