"""``ifguide provenance``."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import option, options_of

SUMMARY = (
    "From a mask, scores, factors, tokens or a run back to all that it was made of; print or run the commands again."
)
EXAMPLE = "ifguide provenance data/corpus_mask --replay --output replayed > replay.sh"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The options of this verb."""

    file: str = option(
        flags=["file"], metavar="FILE", kind="input",
        help="prefix or file of a dataset, a factors folder, a run's folder",
    )  # fmt: skip
    replay: bool = option(False, one_of="how", help="print the commands that make it again, as a shell script")
    run: bool = option(False, one_of="how", help="run those commands and compare every product with the first")
    output: Path = option(
        Path("replayed"), metavar="DIR", kind="output",
        help="folder that the replay writes to; must not exist (default: replayed)",
    )  # fmt: skip


OPTIONS = Provenance


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.inspection.lineage import trace
    from ifguide.inspection.replay import Commands, plan, replay, script
    from ifguide.inspection.terminal import tree_lines
    from ifguide.verbs import make_parser, named_of
    from ifguide.verbs.run import run_verb

    asked = options_of(args, Provenance)
    node = trace(asked.file)
    if not (asked.replay or asked.run):
        if not args.json:
            print("\n".join(tree_lines(node)))
        return node.as_dict()
    commands = Commands(named_of, make_parser, run_verb)
    steps = plan(node, asked.output, commands)
    if asked.replay:
        if not args.json:
            print(script(node, steps, asked.output))
        return {"commands": [step.command for step in steps]}
    results = replay(node, steps, asked.output, commands)
    if not args.json:
        for result in results:
            print(f"{result['product']}: the same as {result['original']}")
    return {"commands": [shlex.join(step.command) for step in steps], "identical": True, "products": results}
