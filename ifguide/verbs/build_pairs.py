"""``ifguide build-pairs``: scored continuations -> pairs of a chosen and a rejected one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.evaluation.pairs.options import GENERATIONS, JSONL, SOURCES, PairFiles, PairOptions
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, jsonl_with_sidecar

SUMMARY = (
    "Make pairs of a harmless and a toxic continuation of one prompt, for objectives on pairs (dpo, npo, rmu, repo): "
    "lengths matched, near-duplicates left out, none that overlaps the evaluation's prompts."
)
EXAMPLE = (
    "ifguide build-pairs --generations scored.jsonl --exclude eval/rtp.jsonl --output pairs.jsonl\n"
    "  ifguide build-pairs --source control --generations scored.jsonl --greedy greedy.jsonl ...   (a control: both "
    "harmless)"
)


@dataclass(frozen=True, kw_only=True)
class BuildPairs:
    """The options of this verb."""

    source: str = option(
        GENERATIONS, choices=SOURCES,
        help="generations (default): each prompt's least and most toxic continuation; jsonl: given pairs, checked; "
        "control: the greedy continuation against a sampled harmless one",
    )  # fmt: skip
    generations: str | None = option(
        None, metavar="FILE", kind="input", help="JSONL that score-generations wrote"
    )  # fmt: skip
    input: str | None = option(
        None, metavar="FILE", kind="input", help="of --source jsonl: prompt, chosen, rejected, optional category"
    )
    greedy: str | None = option(
        None, metavar="FILE", kind="input", help="of --source control: what generate --samples 1 --top-k 1 wrote"
    )
    scorer_name: str | None = option(
        None, metavar="NAME", help="whose scores count, where the file has those of several scorers"
    )
    exclude: Sequence[str] = option(
        metavar="FILE", kind="input", help='evaluation files, JSONL with "prompt" or "text"'
    )  # fmt: skip
    output: str = option(metavar="FILE", kind="output", help="JSONL to write; FILE.json states how")
    which: PairOptions = part(PairOptions)


OPTIONS = BuildPairs
WRITES = Writes(
    lambda args: jsonl_with_sidecar(args.output),
    named(BuildPairs),
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import InputError
    from ifguide.evaluation.pairs.build import build_pairs, said

    asked = options_of(args, BuildPairs)
    wanted, other = ("--input", asked.generations) if asked.source == JSONL else ("--generations", asked.input)
    inputs = asked.input if asked.source == JSONL else asked.generations
    if inputs is None or other is not None:
        raise InputError(f"--source {asked.source} reads {wanted}; give that alone")
    files = PairFiles(asked.source, inputs, asked.exclude, asked.greedy, asked.scorer_name)
    result = build_pairs(files, asked.output, asked.which)
    if not args.json:
        counts = result["counts"]
        print(f"{result['output']}: {counted(counts['pairs'], 'pair')} of {counted(counts['read'], 'prompt')}")
        print(f"left out: {said(counts)}")
    return result
