"""``ifguide build-mask``."""

from __future__ import annotations

import argparse
from typing import Any

SUMMARY = "Select the tokens to penalise from their scores (Algorithm 1) and write the aligned uint8 mask."
EXAMPLE = "ifguide build-mask --scores data/corpus_scores --output data/corpus_mask --max-fraction 0.02"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ifguide.data.aligned import ENCODINGS
    from ifguide.masks import METHODS

    parser.add_argument("--scores", required=True, metavar="S", help="score dataset, without .bin/.idx")
    parser.add_argument("--output", required=True, metavar="M", help="mask to write, without .bin/.idx")
    parser.add_argument("--data", metavar="P", help="token dataset, if it moved since it was scored")
    parser.add_argument(
        "--threshold-quantile", type=float, default=0.99, metavar="Q",
        help="tokens above this quantile of all scores are toxic (default: 0.99)",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=int, default=1, metavar="W", help="neighbours added on each side of a toxic token (default: 1)"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--max-fraction", type=float, metavar="F", help="budget as a share of tokens (default: 0.02)")
    budget.add_argument("--max-tokens", type=int, metavar="N", help="budget in tokens")
    parser.add_argument(
        "--unit-tokens", type=int, default=2048, metavar="U",
        help="longer documents are ranked in pieces of this many tokens (default: 2048)",
    )  # fmt: skip
    parser.add_argument("--encoding", choices=ENCODINGS, default="binary", help="default: binary")
    parser.add_argument("--include-eod", action="store_true", help="count and select end-of-document tokens too")
    parser.add_argument(
        "--method", choices=METHODS, default="influence", help="random: the control, as many tokens drawn at random"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --method random (default: 0)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.masks import build_mask
    from ifguide.selection import SelectionSettings

    fraction = 0.02 if args.max_fraction is None and args.max_tokens is None else args.max_fraction
    settings = SelectionSettings(
        threshold_quantile=args.threshold_quantile,
        window=args.window,
        max_fraction=fraction,
        max_tokens=args.max_tokens,
        unit_tokens=args.unit_tokens,
        include_eod=args.include_eod,
    )
    result = build_mask(
        args.scores,
        args.output,
        settings,
        method=args.method,
        encoding=args.encoding,
        seed=args.seed,
        data_prefix=args.data,
    )
    if not args.json:
        print(
            f"{result['output']}: {result['selected']} of {result['tokens']} tokens selected "
            f"({result['fraction']:.2%}, budget {result['budget']}), threshold {result['threshold']:.4g}"
        )
    return result
