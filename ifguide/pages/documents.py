"""Documents as coloured pieces: which token carries which score, which are selected, which were planted.

Shapes: N tokens, D documents, T tokens of one document.

Tokens that share a character share a piece (see `ifguide.pages.text`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.data.indexed import TokenDataset
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.pages.text import densest, split_text

SHADES = 10  # steps of colour on each side of zero
_FULL_COLOUR_QUANTILE = 0.995  # of |score|: the few largest would leave all others pale
_SHOWN_TOKENS = 800  # of one document: keeps the page small whatever the corpus


@dataclass(frozen=True)
class TokenMarks:
    """What is known of every token.

    Attributes:
        scores: ``[N]`` (M2).
        selected: ``[N]`` bool, true inside the mask.
        planted: ``[N]`` bool, true inside planted abuse; None where nothing was planted.
    """

    scores: NDArray[np.floating]
    selected: NDArray[np.bool_]
    planted: NDArray[np.bool_] | None

    def full_colour(self) -> float:
        """The |score| that gets the full colour."""
        return float(np.quantile(np.abs(self.scores), _FULL_COLOUR_QUANTILE))


@dataclass(frozen=True)
class Piece:
    """The text of one token, or of several that share a character.

    Attributes:
        text: as it stands in the document.
        scores: of its tokens.
        shade: -`SHADES` .. `SHADES`, of the score farthest from zero.
    """

    text: str
    scores: tuple[float, ...]
    shade: int
    selected: bool
    planted: bool

    @property
    def classes(self) -> str:
        """CSS classes: ``p3`` is the third step of red, ``n3`` of blue."""
        names = [f"{'p' if self.shade > 0 else 'n'}{abs(self.shade)}"] if self.shade else []
        return " ".join(names + ["sel"] * self.selected + ["pl"] * self.planted)

    @property
    def label(self) -> str:
        return " ".join(f"{score:.3g}" for score in self.scores)


@dataclass(frozen=True)
class ShownDocument:
    """A document, or the part of a long one that holds the most.

    Attributes:
        index: of the document in the dataset.
        total: sum of its selected tokens' scores.
        num_tokens: of the whole document.
        num_selected: of the whole document.
        first: first token shown; the last is ``first + shown - 1``.
        shown: tokens shown.
        pieces: what is shown.
    """

    index: int
    total: float
    num_tokens: int
    num_selected: int
    first: int
    shown: int
    pieces: list[Piece]


def top_documents(tokens: TokenDataset, marks: TokenMarks, tokenizer: Tokenizer, count: int) -> list[ShownDocument]:
    """The ``count`` documents with the largest sum of selected tokens' scores, that sum first; an appended
    end-of-document token is not shown."""
    kept = np.where(marks.selected, marks.scores, 0.0)
    starts = tokens.starts
    totals = _between(kept, starts)
    num_selected = _between(marks.selected, starts)
    ranked = np.argsort(-totals, kind="stable")
    full = marks.full_colour()
    shown = []
    for index in map(int, ranked[:count]):
        if not num_selected[index]:
            continue
        ids = tokens.document(index).tolist()
        if ids[-1] == tokenizer.eod:
            ids.pop()
        base = int(starts[index])
        first = densest(kept[base : base + len(ids)], _SHOWN_TOKENS)
        ids_shown = ids[first : first + _SHOWN_TOKENS]
        pieces = _pieces(split_text(ids_shown, tokenizer.token_bytes), base + first, marks, full)
        shown.append(
            ShownDocument(
                index, float(totals[index]), len(ids), int(num_selected[index]), first, len(ids_shown), pieces
            )
        )
    return shown


def _between(values: NDArray, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[D]`` sum of ``values`` in each document (`np.add.reduceat` is wrong for empty documents)."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return running[starts[1:]] - running[starts[:-1]]


def _pieces(texts: list[tuple[str, int]], first: int, marks: TokenMarks, full: float) -> list[Piece]:
    """Pieces with the marks of their tokens, which begin at place ``first`` of the dataset."""
    pieces = []
    for text, count in texts:
        at = slice(first, first + count)
        scores = marks.scores[at].astype(np.float64)
        pieces.append(
            Piece(
                text=text,
                scores=tuple(scores.tolist()),
                shade=_shade(scores[np.argmax(np.abs(scores))], full),
                selected=bool(marks.selected[at].any()),
                planted=marks.planted is not None and bool(marks.planted[at].any()),
            )
        )
        first += count
    return pieces


def _shade(score: float, full: float) -> int:
    if full == 0:
        return 0
    return int(np.sign(score) * round(SHADES * min(1.0, abs(score) / full)))
