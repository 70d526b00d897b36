"""``ifguide provenance``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

SUMMARY = (
    "From a mask, scores, factors, tokens or a run back to all that it was made of; print or run the commands again."
)
EXAMPLE = "ifguide provenance data/corpus_mask --replay --output replayed > replay.sh"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="prefix or file of a dataset, a factors folder, a run's folder")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--replay", action="store_true", help="print the commands that make it again, as a shell script")
    how.add_argument("--run", action="store_true", help="run those commands and compare every product with the first")
    parser.add_argument(
        "--output", type=Path, default=Path("replayed"), metavar="DIR",
        help="folder that the replay writes to; must not exist (default: replayed)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.inspection.lineage import trace
    from ifguide.inspection.replay import Commands, plan, replay, script
    from ifguide.inspection.terminal import tree_lines
    from ifguide.verbs import make_parser, named_of
    from ifguide.verbs.run import run_verb

    node = trace(args.file)
    if not (args.replay or args.run):
        if not args.json:
            print("\n".join(tree_lines(node)))
        return node.as_dict()
    commands = Commands(named_of, make_parser, run_verb)
    steps = plan(node, args.output, commands)
    if args.replay:
        if not args.json:
            print(script(node, steps, args.output))
        return {"commands": [step.command for step in steps]}
    results = replay(node, steps, args.output, commands)
    if not args.json:
        for result in results:
            print(f"{result['product']}: the same as {result['original']}")
    return {"commands": [shlex.join(step.command) for step in steps], "identical": True, "products": results}
