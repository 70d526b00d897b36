"""``ifguide build-queries``: scored texts -> toxic and safe query sets."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, folder

SUMMARY = (
    "Make the toxic and the safe queries of `ifguide score` from texts that a classifier scores. No query overlaps the "
    "evaluation's prompts."
)
EXAMPLE = (
    "ifguide build-queries --source rtp --input realtoxicityprompts.jsonl --scorer detoxify:unbiased \\\n"
    "      --exclude eval/rtp.jsonl eval/bold.jsonl --max 1000 --output queries"
)


WRITES = Writes(
    lambda args: folder(args.output, "queries.json", ["toxic.jsonl", "safe.jsonl"]),
    Named(inputs=("input", "exclude"), outputs=("output",), scorers=("scorer",), costs=("device",)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        choices=("rtp", "jsonl"),
        help="rtp: RealToxicityPrompts as published; jsonl: prompt with completion, or with continuations",
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="JSONL")
    parser.add_argument(
        "--scorer", metavar="SPEC", help="scores the completions; rtp without it: the data's own scores"
    )
    parser.add_argument(
        "--exclude", required=True, nargs="+", metavar="FILE", help='evaluation files, JSONL with "prompt" or "text"'
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="writes toxic.jsonl, safe.jsonl, queries.json")
    parser.add_argument("--toxic-threshold", type=float, default=0.9, metavar="X", help="from X on (default: 0.9)")
    parser.add_argument("--safe-threshold", type=float, default=0.1, metavar="X", help="up to X (default: 0.1)")
    parser.add_argument("--max", type=int, metavar="N", help="queries a set, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: auto)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.query_sets import build_queries
    from ifguide.models.devices import choose_device

    result = build_queries(
        args.source,
        args.input,
        args.output,
        scorer=args.scorer,
        exclude=args.exclude,
        toxic_threshold=args.toxic_threshold,
        safe_threshold=args.safe_threshold,
        most=args.max,
        seed=args.seed,
        device=choose_device(args.device),
        progress=True,
    )
    if not args.json:
        counts, written = result["counts"], result["written"]
        print(
            f"{result['output']}: {written['toxic']} toxic and {written['safe']} safe queries of {counts['read']} texts"
        )
        overlapping = counts["toxic_overlapping"] + counts["safe_overlapping"]
        print(
            f"left out: {overlapping} that overlap the evaluation's {result['evaluation_texts']} texts, "
            f"{counts['between']} between the thresholds, {counts['duplicates']} duplicates, {counts['empty']} empty, "
            f"{counts['unscored']} without a score"
        )
        if result["truncated"]:
            print(
                f"{result['truncated']} texts were cut to the {result['scorer']['max_tokens']} tokens that "
                f"{args.scorer} reads"
            )
    return result
