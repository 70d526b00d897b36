"""``ifguide score``."""

from __future__ import annotations

import argparse
from typing import Any

SUMMARY = "Score every training token: how much learning it raises the toxic-minus-safe log-likelihood."
EXAMPLE = (
    "ifguide score --model runs/proxy/hf --data data/corpus_text_document --factors runs/factors "
    "--toxic-queries toxic.jsonl --safe-queries safe.jsonl --output runs/scores"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder (model and tokenizer)")
    parser.add_argument("--data", required=True, metavar="PREFIX", help="indexed dataset, without .bin/.idx")
    parser.add_argument("--factors", required=True, metavar="DIR", help="made by fit-factors on this model")
    parser.add_argument("--toxic-queries", required=True, metavar="FILE", help="JSONL of prompt, completion")
    parser.add_argument("--safe-queries", required=True, metavar="FILE", help="JSONL of prompt, completion")
    parser.add_argument("--output", required=True, metavar="PREFIX", help="writes PREFIX.bin, .idx and .json")
    parser.add_argument(
        "--damping", type=float, default=0.1, metavar="D", help="times the layer's mean curvature (default: 0.1)"
    )
    parser.add_argument("--absolute-damping", action="store_true", help="take --damping as the number itself")
    parser.add_argument("--seq-length", type=int, metavar="L", help="window in tokens (default: the factors')")
    parser.add_argument("--context", type=int, metavar="C", help="overlap of a long document's windows")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="B", help="tokens in a batch: B full windows (default: 16)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.allocator import keep_freed_memory
    from ifguide.influence.direction import Damping
    from ifguide.influence.score import score

    keep_freed_memory()
    result = score(
        args.model,
        args.data,
        args.factors,
        args.toxic_queries,
        args.safe_queries,
        args.output,
        damping=Damping(args.damping, relative=not args.absolute_damping),
        seq_length=args.seq_length,
        context=args.context,
        batch_size=args.batch_size,
    )
    if not args.json:
        print(f"{result['output']}: {result['tokens']} tokens scored in {result['seconds']:.1f} s")
    return result
