"""``ifguide preprocess``: text (JSONL) -> indexed dataset of tokens."""

from __future__ import annotations

import argparse
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, datasets

SUMMARY = "Tokenize JSONL text into a GPT-NeoX indexed dataset: PREFIX_text_document.bin, .idx and .json."
EXAMPLE = (
    "ifguide preprocess --input corpus.jsonl.zst --tokenizer-type HFTokenizer \\\n"
    "      --vocab-file 20B_tokenizer.json --output-prefix data/corpus --append-eod --workers 8"
)


WRITES = Writes(
    lambda args: datasets([f"{args.output_prefix}_text_document"]),
    Named(inputs=("input", "vocab_file", "merge_file"), outputs=("output_prefix",), costs=("workers",)),
    keeps_result=True,
    is_replayed=True,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The names are those of GPT-NeoX's ``tools/datasets/preprocess_data.py``."""
    parser.add_argument("--input", nargs="+", required=True, metavar="FILE", help="JSONL files; .gz and .zst are read")
    parser.add_argument("--output-prefix", required=True, metavar="P", help="writes P_text_document.{bin,idx,json}")
    parser.add_argument(
        "--tokenizer-type",
        required=True,
        metavar="TYPE",
        help="HFTokenizer, SPMTokenizer, GPT2BPETokenizer or CharLevelTokenizer",
    )
    parser.add_argument("--vocab-file", metavar="FILE", help="vocabulary of the tokenizer, as in a NeoX configuration")
    parser.add_argument("--merge-file", metavar="FILE", help="merges of a GPT2BPETokenizer")
    parser.add_argument("--append-eod", action="store_true", help="end each document with the end-of-document token")
    parser.add_argument(
        "--eod-token", metavar="T", help="the end-of-document token, by its name (default: <|endoftext|>)"
    )
    parser.add_argument(
        "--bos",
        default="keep",
        metavar="WHAT",
        help="keep (as GPT-NeoX does; default) or strip the special tokens that the tokenizer puts around every text",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that tokenize (default: 1)")
    parser.add_argument(
        "--jsonl-keys", dest="json_key", default="text", metavar="KEY", help="field that holds the text (default: text)"
    )
    parser.add_argument(
        "--skip-bad-lines", action="store_true", help="count malformed lines instead of stopping at the first"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Tokenize, then say what was written and what was left out."""
    from ifguide.data.preprocess import preprocess
    from ifguide.system.progress import compact

    stats = preprocess(
        args.input,
        args.output_prefix,
        args.tokenizer_type,
        args.vocab_file,
        args.merge_file,
        append_eod=args.append_eod,
        workers=args.workers,
        json_key=args.json_key,
        skip_bad_lines=args.skip_bad_lines,
        bos=args.bos,
        eod_token=args.eod_token,
    )
    if not args.json:
        print(f"wrote {stats['output']}: {stats['documents']} documents, {stats['tokens']} {stats['dtype']} tokens")
        left_out = {
            "empty": stats["empty_documents"],
            "without text": stats["not_text"],
            "malformed": stats["bad_lines"],
        }
        if any(left_out.values()):
            print("left out: " + ", ".join(f"{count} {what}" for what, count in left_out.items() if count))
        print(f"{compact(stats['tokens_per_second'])} tokens/s")
    return stats
