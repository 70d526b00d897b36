"""``ifguide inspect``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ifguide.config.options import Named
from ifguide.verbs.writes import Writes, page

SUMMARY = "Show the documents that a mask penalises most, token by token, in the terminal or as one HTML page."
EXAMPLE = (
    "ifguide inspect --data data/corpus_text_document --mask data/corpus_mask --scores data/corpus_scores \\\n"
    "      --top 1000 --html corpus_mask.html"
)

_TERMINAL_DOCUMENTS, _PAGE_DOCUMENTS = 10, 200


WRITES = Writes(
    lambda args: args.html and page(args.html),
    Named(inputs=("data", "mask", "scores", "vocab_file", "merge_file"), outputs=("html",)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="P", help="token dataset, without .bin/.idx")
    parser.add_argument("--mask", required=True, metavar="M", help="mask, without .bin/.idx")
    parser.add_argument("--scores", metavar="S", help="scores that colour the tokens and rank the documents")
    add_tokenizer_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--top", type=int, metavar="K",
        help=f"the K most toxic documents (default: {_TERMINAL_DOCUMENTS}, of a page {_PAGE_DOCUMENTS})",
    )  # fmt: skip
    which.add_argument("--document", type=int, metavar="I", help="document I alone, counted from 0")
    parser.add_argument("--html", type=Path, metavar="F", help="write one self-contained page instead")


def add_tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name a tokenizer, for verbs that show text."""
    parser.add_argument("--tokenizer-type", metavar="TYPE", help="as for preprocess (default: what the data records)")
    parser.add_argument("--vocab-file", metavar="FILE", help="of the tokenizer")
    parser.add_argument("--merge-file", metavar="FILE", help="of a GPT2BPETokenizer")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.data.text.recorded_tokenizer import find_tokenizer
    from ifguide.inspection.documents import inspect
    from ifguide.inspection.terminal import document_lines, wants_colour
    from ifguide.pages.inspection import inspection_page
    from ifguide.system.files import write_text
    from ifguide.system.outputs import with_request

    tokenizer = find_tokenizer(args.data, args.tokenizer_type, args.vocab_file, args.merge_file)
    top = args.top if args.top is not None else _PAGE_DOCUMENTS if args.html else _TERMINAL_DOCUMENTS
    found = inspect(args.data, args.mask, args.scores, tokenizer, top, args.document)
    if args.html:
        write_text(args.html, with_request(inspection_page(found)))
    if not args.json:
        if args.html:
            print(f"{args.html}: {len(found.documents)} documents")
        else:
            text = "\n".join(document_lines(found, wants_colour(sys.stdout)))
            encoding = sys.stdout.encoding or "utf-8"
            print(text.encode(encoding, "backslashreplace").decode(encoding))
    return {
        "documents": [
            {
                "index": document.index,
                "toxicity": document.measure,
                "tokens": document.num_tokens,
                "selected": document.num_selected,
                "first": document.first,
                "pieces": [] if args.html else [
                    {
                        "text": text,
                        "scores": None if document.scores is None else document.scores[at].tolist(),
                        "ranks": None if document.ranks is None else document.ranks[at].tolist(),
                        "strengths": document.strengths[at].tolist(),
                    }
                    for text, at in document.spans()
                ],
            }
            for document in found.documents
        ],
        "num_documents": found.num_documents,
        "num_tokens": found.num_tokens,
        "num_selected": found.num_selected,
        "threshold": found.threshold,
        "html": None if args.html is None else str(args.html),
    }  # fmt: skip
