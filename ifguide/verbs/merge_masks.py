"""``ifguide merge-masks``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Masks (or scores) of several corpora -> those of the merged corpus, beside GPT-NeoX's merge_datasets.py."
EXAMPLE = (
    "ifguide merge-masks --masks data/a_mask data/b_mask \\\n"
    "      --data data/merged_text_document --output data/merged_mask"
)


@dataclass(frozen=True, kw_only=True)
class MergeMasks:
    """The options of this verb; one of ``masks`` and ``scores`` is None."""

    masks: Sequence[str] | None = option(
        one_of="parts", metavar="M", kind="input", help="masks, in the order in which their tokens were merged"
    )
    scores: Sequence[str] | None = option(one_of="parts", metavar="S", kind="input", help="or scores")
    data: str = option(metavar="P", kind="input", help="the merged token dataset, compared with every part")
    output: str = option(metavar="M", kind="output", help="what to write, without .bin/.idx")
    convert_binary: bool = option(
        False, help="where binary and graded masks meet, write a graded one: 1 becomes 255, the full strength"
    )


OPTIONS = MergeMasks
WRITES = Writes(lambda args: datasets([args.output]), named(MergeMasks), keeps_result=True, is_replayed=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.data.sidecar import PENALTIES, SCORES
    from ifguide.masks import merge_masks

    asked = options_of(args, MergeMasks)
    kind = PENALTIES if asked.masks else SCORES
    parts = asked.masks or asked.scores or ()
    result = merge_masks(parts, asked.output, asked.data, kind, asked.convert_binary, quiet=False)
    if not args.json:
        selected = f", {result['selected']} selected" if asked.masks else ""
        print(f"{result['output']}: {counted(result['parts'], 'part')}, {counted(result['tokens'], 'token')}{selected}")
    return result
