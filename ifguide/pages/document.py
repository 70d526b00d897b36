"""A document as coloured tokens: what is known of each token, and how it travels inside a page.

Shapes: T tokens shown of one document.

Documents travel as JSON inside an inert element, and ``document.js`` puts them on the screen as text, in every page
that shows one: a corpus cannot become markup, and a page of 1,000 documents stays light. Tokens that share a
character share a piece (see `ifguide.pages.text`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.pages.environment import json_text
from ifguide.pages.text import visible


@dataclass(frozen=True, eq=False)
class ShownDocument:
    """A document, or the part of a long one that holds the most.

    Attributes:
        index: in the dataset.
        measure: what it was chosen by: the largest R, or the sum of its selected tokens' scores.
        num_tokens, num_selected: of the whole document.
        first: first token shown.
        pieces: (text, number of its tokens); the numbers add up to T.
        scores: float32[T], or None.
        ranks: int64[T], place of each score among all of the dataset, or None.
        strengths: uint8[T], 0 for a token that is not selected.
        planted: bool[T], true inside planted abuse; None where nothing was planted or it is not known.
    """

    index: int
    measure: float
    num_tokens: int
    num_selected: int
    first: int
    pieces: list[tuple[str, int]]
    scores: NDArray[np.float32] | None
    ranks: NDArray[np.int64] | None
    strengths: NDArray[np.uint8]
    planted: NDArray[np.bool_] | None = None

    def spans(self) -> list[tuple[str, slice]]:
        """(text, its tokens among those shown) of each piece."""
        ends = np.cumsum([count for _, count in self.pieces]).tolist()
        return [(text, slice(end - count, end)) for (text, count), end in zip(self.pieces, ends)]


def documents_json(head: dict[str, Any], documents: list[ShownDocument]) -> str:
    """What ``document.js`` reads: ``head`` about the whole dataset, ``shown`` for each document.

    Args:
        head: holds ``tokens`` (of the dataset), ``full`` (the |score| of the full colour) and ``graded`` (whether
            the strengths differ) for ``document.js``, and whatever the page's own script reads.
    """
    rank_type = "<u4" if head["tokens"] < 1 << 32 else "<f8"
    shown = ",\n".join(json_text(_fields(document, rank_type)) for document in documents)
    return f'{{"head":{json_text(head)},\n"shown":[\n{shown}\n]}}'


def _fields(document: ShownDocument, rank_type: str) -> dict[str, Any]:
    """One document: its pieces as one text and their lengths, its numbers as arrays that the script unpacks only
    when the document is looked at."""
    texts = [visible(text) for text, _ in document.pieces]
    # UTF-16 units, in which the script counts
    cuts = [len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2 for text in texts]
    fields = {
        "i": document.index,
        "r": float(f"{document.measure:.4g}"),
        "n": document.num_tokens,
        "k": document.num_selected,
        "f": document.first,
        "shown": len(document.strengths),
        "text": "".join(texts),
        "cut": _packed(np.array(cuts), "<u2"),
        "many": {place: count for place, (_, count) in enumerate(document.pieces) if count > 1},
        "runs": _runs(document.strengths),
    }
    if document.scores is not None:
        fields["s"] = _packed(document.scores, "<f4")
    if document.ranks is not None:
        fields["rank"] = _packed(document.ranks, rank_type)
    if document.planted is not None:
        fields["planted"] = _runs(document.planted)
    return fields


def _runs(values: NDArray) -> list[list[int]]:
    """[begin, end, value] of each run of one value that is not 0."""
    changes = np.flatnonzero(np.diff(values.astype(np.int16), prepend=0, append=0))
    return [[int(begin), int(end), int(values[begin])] for begin, end in pairwise(changes) if values[begin]]


def _packed(values: NDArray, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()
