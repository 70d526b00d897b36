"""``ifguide score-generations``: continuations -> toxicity scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of
from ifguide.scorers.registry import NO_PERSPECTIVE, SPECS
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, jsonl_with_sidecar

SUMMARY = (
    "Score every continuation of a file, with one classifier or several. A killed run goes on where it stopped when "
    "the same command is given again, and writes the same file."
)
EXAMPLE = (
    "ifguide score-generations --generations generations.jsonl --scorer detoxify:unbiased \\\n"
    "      --scorer toxigen-roberta --output scored.jsonl"
)


@dataclass(frozen=True, kw_only=True)
class ScoreGenerations:
    """The options of this verb."""

    generations: str = option(metavar="FILE", kind="input", help='JSONL with "continuations"')
    scorer: Sequence[str] = option(
        action="append", metavar="SPEC", kind="scorer",
        help=f"{SPECS}; give it again for more. {NO_PERSPECTIVE[0].upper()}{NO_PERSPECTIVE[1:]}",
    )  # fmt: skip
    output: str = option(metavar="FILE", kind="output", help="JSONL to write; FILE.json states how")
    device: str = option("auto", metavar="NAME", kind="cost", help="cpu, cuda, ... (default: auto)")


OPTIONS = ScoreGenerations
WRITES = Writes(
    # a file that is scored in place is its own input: nothing of it is lost
    lambda args: None if _in_place(args) else jsonl_with_sidecar(args.output),
    named(ScoreGenerations),
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.scored_generations import score_generations
    from ifguide.models.devices import choose_device
    from ifguide.pages.evaluation_table import warnings_of

    asked = options_of(args, ScoreGenerations)
    result = score_generations(
        asked.generations, asked.scorer, asked.output, device=choose_device(asked.device), progress=True
    )
    if not args.json:
        print(
            f"{result['output']}: {counted(result['texts'], 'continuation')} of {counted(result['prompts'], 'prompt')}"
        )
        for warning in warnings_of(result["scorers"]):
            print(warning)
        for name, found in result["results"].items():
            said = [] if found["emt"] is None else [f"EMT {found['emt']:.4f}, TP {found['tp']:.4f}"]
            if found["truncated"]:
                said.append(f"{counted(found['truncated'], 'text')} cut to the classifier's length")
            if said:
                print(f"{name}: {', '.join(said)}")
    return result


def _in_place(args: argparse.Namespace) -> bool:
    from pathlib import Path

    return Path(args.generations).resolve() == Path(args.output).resolve()
