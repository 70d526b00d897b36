"""``ifguide merge-masks``."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Masks (or scores) of several corpora -> those of the merged corpus, beside GPT-NeoX's merge_datasets.py."
EXAMPLE = (
    "ifguide merge-masks --masks data/a_mask data/b_mask \\\n"
    "      --data data/merged_text_document --output data/merged_mask"
)


WRITES = Writes(
    lambda args: datasets([args.output]),
    Named(inputs=("masks", "scores", "data"), outputs=("output",)),
    keeps_result=True,
    is_replayed=True,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_mutually_exclusive_group(required=True)
    parts.add_argument("--masks", nargs="+", metavar="M", help="masks, in the order in which their tokens were merged")
    parts.add_argument("--scores", nargs="+", metavar="S", help="or scores")
    parser.add_argument("--data", required=True, metavar="P", help="the merged token dataset, compared with every part")
    parser.add_argument("--output", required=True, metavar="M", help="what to write, without .bin/.idx")
    parser.add_argument(
        "--convert-binary", action="store_true",
        help="where binary and graded masks meet, write a graded one: 1 becomes 255, the full strength",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.data.sidecar import PENALTIES, SCORES
    from ifguide.masks import merge_masks

    kind = PENALTIES if args.masks else SCORES
    result = merge_masks(args.masks or args.scores, args.output, args.data, kind, args.convert_binary, quiet=False)
    if not args.json:
        selected = f", {result['selected']} selected" if args.masks else ""
        print(f"{result['output']}: {result['parts']} parts, {result['tokens']} tokens{selected}")
    return result
