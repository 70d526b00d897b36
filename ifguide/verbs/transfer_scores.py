"""``ifguide transfer-scores``."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Move scores to another tokenization of the same documents: a Pythia proxy can so mask Llama's data."
EXAMPLE = (
    "ifguide transfer-scores --scores pythia/scores --data pythia/corpus_text_document \\\n"
    "      --to-data llama/corpus_text_document --to-tokenizer-type SPMTokenizer --to-vocab-file tokenizer.model \\\n"
    "      --output llama/scores"
)


WRITES = Writes(
    lambda args: datasets([args.output]),
    Named(
        inputs=("scores", "data", "to_data", "from_vocab_file", "from_merge_file", "to_vocab_file", "to_merge_file"),
        outputs=("output",),
    ),
    keeps_result=True,
    is_replayed=True,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scores", required=True, metavar="S", help="scores of --data, without .bin/.idx")
    parser.add_argument("--data", required=True, metavar="P", help="the tokens that were scored")
    parser.add_argument("--to-data", required=True, metavar="P", help="the same documents by another tokenizer")
    parser.add_argument("--output", required=True, metavar="S", help="writes S.bin, .idx and .json for --to-data")
    for side, data in (("from", "--data"), ("to", "--to-data")):
        parser.add_argument(
            f"--{side}-tokenizer", f"--{side}-tokenizer-type", metavar="TYPE",
            help=f"tokenizer of {data}, as for preprocess (default: what {data} records)",
        )  # fmt: skip
        parser.add_argument(f"--{side}-vocab-file", metavar="FILE", help="its vocabulary")
        parser.add_argument(f"--{side}-merge-file", metavar="FILE", help="its merges, if it is a GPT2BPETokenizer")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.data.transfer import TokenizerChoice, transfer_scores

    result = transfer_scores(
        args.scores,
        args.data,
        args.to_data,
        args.output,
        TokenizerChoice(args.from_tokenizer, args.from_vocab_file, args.from_merge_file),
        TokenizerChoice(args.to_tokenizer, args.to_vocab_file, args.to_merge_file),
        quiet=False,
    )
    if not args.json:
        source, target = result["tokens"]
        print(f"{result['output']}: scores of {source} tokens moved to {target}, {result['documents']} documents")
        if count := result["documents_compared_without_blanks"]:
            print(f"{count} documents agree only without blanks, once decomposed (a normalizer?)")
        if lost := result["left_out"]:
            print(
                f"left out: tokens without a counterpart (an EOD?), whose scores sum to {lost:.4g}; those moved sum to "
                f"{result['moved']:.4g}"
            )
    return result
