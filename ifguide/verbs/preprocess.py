"""``ifguide preprocess``: text -> indexed dataset of tokens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.text.content import DEFAULT_TYPE
from ifguide.system.progress import counted
from ifguide.verbs.writes import Writes, datasets

SUMMARY = (
    "Tokenize text into a GPT-NeoX indexed dataset: PREFIX_text_document.bin, .idx and .json. Reads JSON lines, plain "
    "text, Parquet and Hugging Face data sets."
)
EXAMPLE = (
    "ifguide preprocess --input corpus.jsonl.zst 'more/*.parquet' --vocab-file 20B_tokenizer.json \\\n"
    "      --output-prefix data/corpus --append-eod --workers 8"
)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The options of this verb; the names are those of GPT-NeoX's ``tools/datasets/preprocess_data.py``."""

    input: Sequence[str] = option(
        metavar="INPUT", kind="input",
        help="files (.jsonl, .txt, .parquet; text also as .gz, .zst, .bz2, .xz), patterns such as 'a/*.jsonl', "
        "folders, or dataset:NAME#SPLIT, a folder or a name of Hugging Face's datasets",
    )  # fmt: skip
    output_prefix: str = option(metavar="P", kind="output", help="writes P_text_document.{bin,idx,json}")
    tokenizer_type: str = option(
        DEFAULT_TYPE,
        metavar="TYPE",
        help="HFTokenizer, SPMTokenizer, GPT2BPETokenizer or CharLevelTokenizer (default: HFTokenizer)",
    )
    vocab_file: str | None = option(
        None, metavar="FILE", kind="input",
        help="vocabulary of the tokenizer, as in a NeoX configuration, or a Hugging Face folder with one",
    )  # fmt: skip
    merge_file: str | None = option(None, metavar="FILE", kind="input", help="merges of a GPT2BPETokenizer")
    how: PreprocessOptions = part(PreprocessOptions)
    spans: bool = option(
        False, help="also write where lines and sentences end (P_text_document.spans), which build-mask --span needs"
    )


def _as_before(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """One key as earlier versions recorded it, so that what they made is known again."""
    if len(args.jsonl_keys) == 1:
        settings["--jsonl-keys"] = args.jsonl_keys[0]


OPTIONS = Preprocess
WRITES = Writes(
    lambda args: datasets(
        [f"{args.output_prefix}_text_document", *([f"{args.output_prefix}_text_document.spans"] if args.spans else [])]
    ),
    named(Preprocess),
    settle=_as_before,
    keeps_result=True,
    is_replayed=True,
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Tokenize, then say what was written and what was left out."""
    from ifguide.system.progress import compact

    asked = options_of(args, Preprocess)
    stats = preprocess(
        asked.input,
        asked.output_prefix,
        asked.tokenizer_type,
        asked.vocab_file,
        asked.merge_file,
        asked.how,
    )
    if asked.spans:
        stats["spans"] = _write_spans(asked, stats["output"])
    if not args.json:
        print(
            f"wrote {stats['output']}: {counted(stats['documents'], 'document')}, {stats['tokens']:,} "
            f"{stats['dtype']} tokens"
        )
        left_out = {
            "empty": stats["empty_documents"],
            "without text": stats["not_text"],
            "malformed": stats["bad_lines"],
        }
        if any(left_out.values()):
            print("left out: " + ", ".join(f"{count} {what}" for what, count in left_out.items() if count))
        print(f"{compact(stats['tokens_per_second'])} tokens/s")
    return stats


def _write_spans(asked: Preprocess, output: str) -> str:
    from ifguide.data.indexed import TokenDataset
    from ifguide.data.passages.boundaries import write_boundaries
    from ifguide.data.text.reader import TextReader

    files = (asked.tokenizer_type, asked.vocab_file, asked.merge_file, asked.how.bos, asked.how.eod_token)
    return write_boundaries(TokenDataset.open(output), TextReader.from_files(*files), quiet=False).prefix
