"""``ifguide compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, page

SUMMARY = "Put evaluated models side by side: who is better on the same prompts, and how sure that is."
EXAMPLE = "ifguide compare runs/base runs/guided --html comparison.html"


WRITES = Writes(lambda args: args.html and page(args.html), Named(inputs=("runs",), outputs=("html",)), shows=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that `ifguide evaluate` wrote")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the comparison as one HTML page")
    parser.add_argument(
        "--resamples", type=int, default=10_000, metavar="R", help="of the paired bootstrap (default: 10000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.evaluation.compare import compare
    from ifguide.pages.evaluation_table import comparison_table
    from ifguide.system.files import write_text
    from ifguide.system.outputs import with_request

    if args.html:
        from ifguide.pages.comparison import comparison_page  # needs matplotlib: before the work

    result = compare(args.runs, args.resamples, args.seed)
    if args.html:
        write_text(args.html, with_request(comparison_page(result)))
    if not args.json:
        print(comparison_table(result))
        if result["left_out"]:
            print(f"\nnot compared, not in every run: {', '.join(result['left_out'])}")
    return result
