"""``ifguide build-queries``: scored texts -> toxic and safe query sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.evaluation.options import QueryChoice
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, folder

SUMMARY = (
    "Make the toxic and the safe queries of `ifguide score` from texts that a classifier scores. No query overlaps the "
    "evaluation's prompts."
)
EXAMPLE = (
    "ifguide build-queries --source rtp --input realtoxicityprompts.jsonl --scorer detoxify:unbiased \\\n"
    "      --exclude eval/rtp.jsonl eval/bold.jsonl --max 1000 --output queries"
)


@dataclass(frozen=True, kw_only=True)
class BuildQueries:
    """The options of this verb."""

    source: str = option(
        choices=("rtp", "jsonl"),
        help="rtp: RealToxicityPrompts as published; jsonl: prompt with completion, or with continuations",
    )
    input: str = option(metavar="FILE", kind="input", help="JSONL")
    scorer: str | None = option(
        None, metavar="SPEC", kind="scorer", help="scores the completions; rtp without it: the data's own scores"
    )
    exclude: Sequence[str] = option(
        metavar="FILE", kind="input", help='evaluation files, JSONL with "prompt" or "text"'
    )  # fmt: skip
    output: str = option(metavar="DIR", kind="output", help="writes toxic.jsonl, safe.jsonl, queries.json")
    choice: QueryChoice = part(QueryChoice)
    device: str = option("auto", metavar="NAME", kind="cost", help="cpu, cuda, ... (default: auto)")


OPTIONS = BuildQueries
WRITES = Writes(
    lambda args: folder(args.output, "queries.json", ["toxic.jsonl", "safe.jsonl"]),
    named(BuildQueries),
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.query_sets import build_queries
    from ifguide.models.devices import choose_device

    asked = options_of(args, BuildQueries)
    result = build_queries(
        asked.source,
        asked.input,
        asked.output,
        asked.choice,
        scorer=asked.scorer,
        exclude=asked.exclude,
        device=choose_device(asked.device),
        progress=True,
    )
    if not args.json:
        counts, written = result["counts"], result["written"]
        print(
            f"{result['output']}: {written['toxic']} toxic and {written['safe']} safe queries of "
            f"{counted(counts['read'], 'text')}"
        )
        overlapping = counts["toxic_overlapping"] + counts["safe_overlapping"]
        print(
            f"left out: {overlapping} that overlap the evaluation's {counted(result['evaluation_texts'], 'text')}, "
            f"{counts['between']} between the thresholds, {counts['duplicates']} duplicates, {counts['empty']} empty, "
            f"{counts['unscored']} without a score"
        )
        if result["truncated"]:
            print(
                f"{counted(result['truncated'], 'text')} {'was' if result['truncated'] == 1 else 'were'} cut to the "
                f"{counted(result['scorer']['max_tokens'], 'token')} that "
                f"{asked.scorer} reads"
            )
    return result
