"""``ifguide fit-factors``."""

from __future__ import annotations

import argparse
from typing import Any

SUMMARY = "Fit curvature factors of a model on a sample of the training data (kronfluence's EK-FAC)."
EXAMPLE = "ifguide fit-factors --model runs/proxy/hf --data data/corpus_text_document --output runs/factors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder (model and tokenizer)")
    parser.add_argument("--data", required=True, metavar="PREFIX", help="indexed dataset, without .bin/.idx")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for factors.safetensors and .json")
    parser.add_argument(
        "--strategy", default="ekfac", choices=("ekfac", "kfac", "diagonal", "identity"), help="default: ekfac"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="fit on a seeded sample of N tokens (default: all)")
    parser.add_argument("--seq-length", type=int, metavar="L", help="window in tokens (default: the model's, max 2048)")
    parser.add_argument("--context", type=int, metavar="C", help="overlap of a long document's windows (default: L/4)")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="B", help="tokens in a batch: B full windows (default: 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the labels (default: 0)")
    parser.add_argument("--modules", metavar="REGEX", help="track only layers whose name matches")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.allocator import keep_freed_memory
    from ifguide.influence.factors import fit_factors

    keep_freed_memory()
    result = fit_factors(
        args.model,
        args.data,
        args.output,
        strategy=args.strategy,
        max_tokens=args.max_tokens,
        seq_length=args.seq_length,
        context=args.context,
        batch_size=args.batch_size,
        seed=args.seed,
        modules=args.modules,
    )
    if not args.json:
        print(
            f"{result['output']}: {result['strategy']} factors of {len(result['modules'])} layers "
            f"from {result['tokens']} tokens in {result['seconds']:.1f} s"
        )
    return result
