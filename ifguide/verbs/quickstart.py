"""``ifguide quickstart``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ifguide.config.options import Named
from ifguide.system.files import read_json
from ifguide.system.outputs import Output
from ifguide.verbs.writes import Writes, folder

SUMMARY = "Run the whole job on real text: corpus, base model, influence, mask, guided and control model, report."
EXAMPLE = "ifguide quickstart --output quickstart-output --seed 1"


WRITES = Writes(
    lambda args: None if args.preflight_only else _output(args),  # a preflight writes nothing there
    Named(inputs=("input", "toxic_queries", "safe_queries"), outputs=("output",), scorers=("scorer",)),
    result=lambda args, record: read_json(args.output / "results.json", "results"),
    is_replayed=True,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("quickstart-output"), metavar="DIR",
        help="folder for everything; a second call resumes there (default: quickstart-output)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of everything drawn (default: 1)")
    first = parser.add_mutually_exclusive_group()
    first.add_argument(
        "--skip-preflight",
        action="store_true",
        help="start at once; by default every stage runs first on a toy, once in an environment, for under a minute",
    )
    first.add_argument("--preflight-only", action="store_true", help="run the toy, whether or not it ran, and stop")
    own = parser.add_argument_group("your own text instead of the built-in corpus")
    own.add_argument("--input", type=Path, metavar="FILE", help='JSONL of documents: {"text": ...}')
    own.add_argument("--toxic-queries", type=Path, metavar="FILE", help='JSONL: {"prompt": ..., "completion": ...}')
    own.add_argument("--safe-queries", type=Path, metavar="FILE", help="JSONL, as the toxic ones")
    own.add_argument(
        "--scorer", metavar="SPEC",
        help="judge with hf:PATH#LABEL or linear:PATH (default: a classifier trained here on separate examples)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.quickstart import toy
    from ifguide.quickstart.pipeline import run_quickstart
    from ifguide.quickstart.settings import QuickstartSettings
    from ifguide.system.allocator import keep_freed_memory

    def say(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    keep_freed_memory()
    settings = QuickstartSettings(
        args.output,
        args.seed,
        args.input,
        args.toxic_queries,
        args.safe_queries,
        args.scorer,
    )

    if args.preflight_only:
        found = toy.check_here(args.scorer, say)
        say(f"every stage works here; the toy took {found['seconds']:.0f} s")
        return found

    def check() -> None:
        if not args.skip_preflight:
            toy.check_apart(settings, say)

    results = run_quickstart(settings, say, check)
    if not args.json:
        from ifguide.pages.table import models_of, results_table

        print(results_table(results))
        if cut := sum(results[name].get("truncated", 0) for name in models_of(results)):
            print(f"\n{cut} continuations were longer than the judge reads, and are judged by their start.")
        print(f"\nreport: {args.output / 'report.html'}   numbers: {args.output / 'results.json'}")
    return results


def _output(args: argparse.Namespace) -> Output:
    """The folder; it is finished when the record is there, and all that its stages made."""
    stages = args.output / "stages.json"
    known = read_json(stages, "stage record") if stages.is_file() else {}
    made = [name for stage in known.values() for name in stage["outputs"]] if isinstance(known, dict) else []
    return folder(args.output, "run.json", ["results.json", *made], ["stages.json"])
