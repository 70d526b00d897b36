"""``ifguide build-tags``: tokens with a tag before every span, for conditional training."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.masks.tagging import TagOptions
from ifguide.system.progress import counted
from ifguide.verbs.tokenizer_files import IF_UNKNOWN, NamedTokenizer
from ifguide.verbs.writes import Writes, datasets

SUMMARY = (
    "Write the tokens with <|bad|> before each span of high score and <|good|> before the others: conditional "
    "training. A model trained on them is asked for what follows <|good|> (generate --condition)."
)
EXAMPLE = (
    "ifguide build-tags --scores data/suspects --output data/tagged --mask-output data/tags\n"
    "  ifguide generate --model runs/tagged/hf --condition '<|good|>' ..."
)


@dataclass(frozen=True, kw_only=True)
class BuildTags:
    """The options of this verb."""

    scores: str = option(metavar="S", kind="input", help="aligned scores: a classifier's (score-text) or influence")
    output: str = option(metavar="P", kind="output", help="token dataset to write, without .bin/.idx")
    mask_output: str | None = option(
        None, metavar="M", kind="output",
        help="also write the mask of the tags, aligned with P: with penalty_lambda 0 they are left out of the loss",
    )  # fmt: skip
    data: str | None = option(None, metavar="P", kind="input", help="the tokens, if they moved since they were scored")
    tags: TagOptions = part(TagOptions)
    tokenizer: NamedTokenizer = part(NamedTokenizer, texts=IF_UNKNOWN)


OPTIONS = BuildTags
WRITES = Writes(
    lambda args: datasets([args.output, *([args.mask_output] if args.mask_output else [])]),
    named(BuildTags),
    keeps_result=True,
    is_replayed=True,
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.masks.tagging import build_tags

    asked = options_of(args, BuildTags)
    result = build_tags(
        asked.scores,
        asked.output,
        asked.tags,
        data_prefix=asked.data,
        mask_output=asked.mask_output,
        reader_of=asked.tokenizer.reader_of,
        quiet=False,
    )
    if not args.json:
        print(
            f"{result['output']}: {counted(result['documents'], 'document')}, {counted(result['tokens'], 'token')}; "
            f"{result['bad']} of "
            f"{counted(result['spans'], 'span')} are bad ({counted(result['bad_tokens'], 'token')})"
        )
    return result
