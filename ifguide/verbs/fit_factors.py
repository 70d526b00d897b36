"""``ifguide fit-factors``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, folder

if TYPE_CHECKING:
    from ifguide.influence.curvature.stability import Stability

SUMMARY = "Fit curvature factors of a model on a sample of the training data (kronfluence's EK-FAC)."
EXAMPLE = "ifguide fit-factors --model runs/proxy/hf --data data/corpus_text_document --output runs/factors"


WRITES = Writes(
    lambda args: folder(args.output, "factors.json", ["factors.safetensors"]),
    Named(inputs=("model", "data", "toxic_queries", "safe_queries"), outputs=("output",), costs=("batch_size",)),
    is_replayed=True,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder (model and tokenizer)")
    parser.add_argument("--data", required=True, metavar="PREFIX", help="indexed dataset, without .bin/.idx")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for factors.safetensors and .json")
    parser.add_argument(
        "--eod-token", metavar="T", help="what separates documents (default: as the data records, else the model's)"
    )
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
    parser.add_argument(
        "--stability", action="store_true",
        help="also fit on two halves of the sample and say how far the scores agree (needs queries; twice the time)",
    )  # fmt: skip
    parser.add_argument("--toxic-queries", metavar="FILE", help="for --stability, as given to score")
    parser.add_argument("--safe-queries", metavar="FILE", help="for --stability, as given to score")
    parser.add_argument(
        "--stability-tokens", type=int, metavar="N", help="for --stability: tokens to score (default: 100000)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.influence.curvature.job import fit_factors
    from ifguide.system.allocator import keep_freed_memory

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
        stability=_stability(args),
        eod_token=args.eod_token,
    )
    if not args.json:
        print(
            f"{result['output']}: {result['strategy']} factors of {len(result['modules'])} layers "
            f"from {result['tokens']} tokens in {result['seconds']:.1f} s"
        )
        if found := result.get("stability"):
            first, second = (half["tokens"] for half in found["halves"])
            print(
                f"stability of {found['scored_tokens']} scores, fitted on {first} tokens and on {second} others: "
                f"rank correlation {found['rank_correlation']:.4f}, overlap of the top 1 % "
                f"{found['top_1_percent_overlap']:.3f}"
            )
    return result


def _stability(args: argparse.Namespace) -> Stability | None:
    from ifguide.errors import ConfigError
    from ifguide.influence.curvature.stability import SCORED_TOKENS, Stability

    needed = {"--toxic-queries": args.toxic_queries, "--safe-queries": args.safe_queries}
    if not args.stability:
        given = {**needed, "--stability-tokens": args.stability_tokens}
        if unused := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"{name} belongs to --stability; add that, or leave it out" for name in unused)
        return None
    if missing := [name for name, value in needed.items() if value is None]:
        raise ConfigError(f"--stability needs {name}" for name in missing)
    tokens = SCORED_TOKENS if args.stability_tokens is None else args.stability_tokens
    return Stability(args.toxic_queries, args.safe_queries, tokens)
