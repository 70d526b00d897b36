"""``ifguide inspect``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import named, option, options_of, part
from ifguide.verbs.tokenizer_files import NamedTokenizer
from ifguide.verbs.writes import Writes, page

SUMMARY = "Show the documents that a mask penalises most, token by token, in the terminal or as one HTML page."
EXAMPLE = (
    "ifguide inspect --data data/corpus_text_document --mask data/corpus_mask --scores data/corpus_scores \\\n"
    "      --top 1000 --html corpus_mask.html"
)

_TERMINAL_DOCUMENTS, _PAGE_DOCUMENTS = 10, 200


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """The options of this verb."""

    data: str = option(metavar="P", kind="input", help="token dataset, without .bin/.idx")
    mask: str = option(metavar="M", kind="input", help="mask, without .bin/.idx")
    scores: str | None = option(
        None, metavar="S", kind="input", help="scores that colour the tokens and rank the documents"
    )
    tokenizer: NamedTokenizer = part(NamedTokenizer)
    top: int | None = option(
        None, metavar="K", one_of="which",
        help=f"the K most toxic documents (default: {_TERMINAL_DOCUMENTS}, of a page {_PAGE_DOCUMENTS})",
    )  # fmt: skip
    document: int | None = option(None, metavar="I", one_of="which", help="document I alone, counted from 0")
    html: Path | None = option(None, metavar="F", kind="output", help="write one self-contained page instead")


OPTIONS = Inspect
WRITES = Writes(lambda args: args.html and page(args.html), named(Inspect))


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.inspection.documents import inspect
    from ifguide.inspection.terminal import document_lines, wants_colour
    from ifguide.pages.inspection import inspection_page
    from ifguide.system.files import write_text
    from ifguide.system.outputs import with_request
    from ifguide.system.progress import counted

    asked = options_of(args, Inspect)
    tokenizer = asked.tokenizer.reader_of(asked.data).tokenizer
    top = asked.top if asked.top is not None else _PAGE_DOCUMENTS if asked.html else _TERMINAL_DOCUMENTS
    found = inspect(asked.data, asked.mask, asked.scores, tokenizer, top, asked.document, bool(asked.html))
    if asked.html:
        write_text(asked.html, with_request(inspection_page(found)))
    if not args.json:
        if asked.html:
            print(f"{asked.html}: {counted(len(found.documents), 'document')}")
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
                "pieces": [] if asked.html else [
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
        "html": None if asked.html is None else str(asked.html),
    }  # fmt: skip
