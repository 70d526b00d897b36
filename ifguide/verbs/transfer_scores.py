"""``ifguide transfer-scores``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.data.transfer import TokenizerChoice, transfer_scores
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Move scores to another tokenization of the same documents: a Pythia proxy can so mask Llama's data."
EXAMPLE = (
    "ifguide transfer-scores --scores pythia/scores --data pythia/corpus_text_document \\\n"
    "      --to-data llama/corpus_text_document --to-tokenizer-type SPMTokenizer --to-vocab-file tokenizer.model \\\n"
    "      --output llama/scores"
)


def _tokenizer(data: str) -> str:
    return f"tokenizer of {data}, as for preprocess (default: what {data} records)"


@dataclass(frozen=True, kw_only=True)
class TransferScores:
    """The options of this verb."""

    scores: str = option(metavar="S", kind="input", help="scores of --data, without .bin/.idx")
    data: str = option(metavar="P", kind="input", help="the tokens that were scored")
    to_data: str = option(metavar="P", kind="input", help="the same documents by another tokenizer")
    output: str = option(metavar="S", kind="output", help="writes S.bin, .idx and .json for --to-data")
    source: TokenizerChoice = part(TokenizerChoice, prefix="from-", texts={"tokenizer_type": _tokenizer("--data")})
    target: TokenizerChoice = part(TokenizerChoice, prefix="to-", texts={"tokenizer_type": _tokenizer("--to-data")})


OPTIONS = TransferScores
WRITES = Writes(
    lambda args: datasets([args.output]), named(TransferScores), keeps_result=True, is_replayed=True
)  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    asked = options_of(args, TransferScores)
    result = transfer_scores(
        asked.scores, asked.data, asked.to_data, asked.output, asked.source, asked.target, quiet=False
    )
    if not args.json:
        source, target = result["tokens"]
        print(
            f"{result['output']}: scores of {source} tokens moved to {target}, "
            f"{counted(result['documents'], 'document')}"
        )
        if count := result["documents_compared_without_blanks"]:
            print(
                f"{counted(count, 'document')} {'agrees' if count == 1 else 'agree'} only without blanks, once "
                f"decomposed (a normalizer?)"
            )
        if lost := result["left_out"]:
            print(
                f"left out: tokens without a counterpart (an EOD?), whose scores sum to {lost:.4g}; those moved sum to "
                f"{result['moved']:.4g}"
            )
    return result
