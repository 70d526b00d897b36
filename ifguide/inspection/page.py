"""Inspected documents as one HTML page that needs nothing but itself.

The documents travel as JSON inside an inert element; the page's script puts them on the screen as text, one
document at a time, so a corpus cannot become markup and a page of 1,000 documents stays light.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.inspection.documents import Inspection, ShownDocument
from ifguide.pages.text import visible

_HERE = Path(__file__).parent
# what could end the element, confuse a parser, or reorder the page's source in an editor
_UNSAFE = re.compile("[<>&\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\uffff]")
_SHADES = 10


def inspection_page(inspection: Inspection) -> str:
    """The whole page."""
    style = _read("page.css") + "\n".join(
        f".{sign}{step} {{ background: rgb(var(--{name}) / {0.62 * step / _SHADES:.2f}); }}"
        for sign, name in (("p", "hot"), ("n", "cold"))
        for step in range(1, _SHADES + 1)
    )
    script = _read("page.js")
    parts = {
        "POLICY": f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": page_data(inspection),
    }
    return re.sub(r"@(POLICY|STYLE|SCRIPT|DATA)@", lambda match: parts[match[1]], _read("page.html"))


def page_data(inspection: Inspection) -> str:
    """The JSON that the page's script reads; see ``page.js`` for the keys."""
    counted = inspection.histogram
    head = {
        "names": inspection.names,
        "documents": inspection.num_documents,
        "tokens": inspection.num_tokens,
        "selected": inspection.num_selected,
        "threshold": inspection.threshold,
        "full": inspection.full_colour,
        "graded": inspection.graded,
        "histogram": counted and {"low": counted.low, "high": counted.high, "counts": counted.counts.tolist()},
    }
    shown = ",\n".join(_json(_document(document, inspection.num_tokens < 1 << 32)) for document in inspection.documents)
    return f'{{"head":{_json(head)},\n"shown":[\n{shown}\n]}}'


def _document(document: ShownDocument, rank_fits: bool) -> dict[str, Any]:
    """One document: its pieces as one text and their lengths, its numbers as arrays that the script unpacks only
    when the document is looked at. ``rank_fits``: 32 bits suffice for a place among all scores."""
    texts = [visible(text) for text, _ in document.pieces]
    # UTF-16 units, in which the script counts
    cuts = [len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2 for text in texts]
    changes = np.flatnonzero(np.diff(document.strengths.astype(np.int16), prepend=0, append=0))
    fields = {
        "i": document.index,
        "r": float(f"{document.toxicity:.4g}"),
        "n": document.num_tokens,
        "k": document.num_selected,
        "f": document.first,
        "shown": len(document.strengths),
        "text": "".join(texts),
        "cut": _packed(np.array(cuts), "<u2"),
        "many": {place: count for place, (_, count) in enumerate(document.pieces) if count > 1},
        "runs": [
            [int(begin), int(end), int(document.strengths[begin])]
            for begin, end in pairwise(changes)
            if document.strengths[begin]
        ],
    }
    if document.scores is not None and document.ranks is not None:
        fields |= {"s": _packed(document.scores, "<f4"), "rank": _packed(document.ranks, "<u4" if rank_fits else "<f8")}
    return fields


def _packed(values: NDArray, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
