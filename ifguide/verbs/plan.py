"""``ifguide plan``."""

from __future__ import annotations

import argparse
from typing import Any

SUMMARY = "What fitting factors and scoring will take: memory, disk, operations and time. Exit 2 if it cannot fit."
EXAMPLE = "ifguide plan --model runs/proxy/hf --data data/corpus_text_document --disk runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder")
    parser.add_argument("--data", required=True, metavar="PREFIX", help="indexed dataset, without .bin/.idx")
    parser.add_argument(
        "--strategy", default="ekfac", metavar="S", help="of the factors: ekfac (default), kfac, diagonal, identity"
    )
    parser.add_argument("--factor-tokens", type=int, metavar="N", help="fit on a sample of N tokens (default: all)")
    parser.add_argument("--query-tokens", type=int, default=100_000, metavar="N", help="of all queries (default: 1e5)")
    parser.add_argument("--attribution", default="loss-term", metavar="A", help="loss-term (default) or position")
    parser.add_argument(
        "--method", default="auto", metavar="M", help="jvp, difference or auto (default: both are planned)"
    )
    parser.add_argument("--one-sided", action="store_true", help="of --method difference")
    parser.add_argument("--rank", type=int, metavar="R", help="cut each direction to rank R")
    parser.add_argument("--directions", type=int, default=1, metavar="K", help="behaviours in one pass (default: 1)")
    parser.add_argument("--dtype", default="float32", metavar="T", help="of the pass: float32 (default) or bfloat16")
    parser.add_argument("--seq-length", type=int, metavar="L", help="window in tokens (default: the model's, max 2048)")
    parser.add_argument("--context", type=int, metavar="C", help="overlap of a long document's windows (default: L/4)")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="B", help="tokens in a batch: B full windows (default: 16)"
    )
    parser.add_argument("--shard-tokens", type=int, default=1 << 18, metavar="N", help="as for score (default: 2^18)")
    parser.add_argument("--modules", metavar="REGEX", help="track only layers whose name matches")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    parser.add_argument("--device", metavar="D", help="cpu or cuda (default: the GPU if there is one)")
    parser.add_argument("--device-memory", type=float, metavar="GB", help="plan for a device with so much")
    parser.add_argument("--disk", default=".", metavar="DIR", help="folder that the files go to (default: this one)")
    parser.add_argument(
        "--no-timing", action="store_true", help="from the configuration alone: no weights are read, no batch is timed"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.errors import tell
    from ifguide.influence.passes.method import Method
    from ifguide.influence.planning.needs import Settings
    from ifguide.influence.planning.plan import plan
    from ifguide.influence.planning.table import render

    settings = Settings(
        method=Method(args.attribution, args.method, one_sided=args.one_sided, rank=args.rank, dtype=args.dtype),
        directions=args.directions,
        batch_size=args.batch_size,
        seq_length=args.seq_length,
        context=args.context,
        strategy=args.strategy,
        factor_tokens=args.factor_tokens,
        query_tokens=args.query_tokens,
        modules=args.modules,
        ranks=args.ranks,
        device=args.device,
        device_memory=args.device_memory,
        disk=args.disk,
        shard_tokens=args.shard_tokens,
    )
    result = plan(args.model, args.data, settings, timing=not args.no_timing)
    if not args.json:
        print(render(result))
    for fault in result["faults"]:
        tell("ifguide plan", fault)
    return result


def exit_code(result: dict[str, Any]) -> int:
    """2 where something cannot fit."""
    return 2 if result["faults"] else 0
