"""Documents as coloured pieces: which token carries which score, which are selected, which were planted.

Shapes: N tokens, D documents, T tokens of one document.

A byte-level token may hold a part of a UTF-8 character, so tokens are not decoded one by one: the
tokenizer's character offsets cut the document's own text, and tokens that share a character share a piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ifguide.data.indexed import TokenDataset
from ifguide.errors import MismatchError

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


def top_documents(
    texts: Sequence[str], tokens: TokenDataset, marks: TokenMarks, tokenizer: Tokenizer, count: int
) -> list[ShownDocument]:
    """The ``count`` documents with the largest sum of selected tokens' scores, that sum first.

    Args:
        texts: ``[D]``, row i is document i.

    Raises:
        MismatchError: a text is not the one that was tokenized.
    """
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
        offsets = _offsets(texts[index], tokens.document(index), tokenizer, index)
        base = int(starts[index])
        first = _densest(kept[base : base + len(offsets)])
        last = min(len(offsets), first + _SHOWN_TOKENS)
        pieces = _pieces(texts[index], offsets, range(first, last), base, marks, full)
        shown.append(
            ShownDocument(
                index, float(totals[index]), len(offsets), int(num_selected[index]), first, last - first, pieces
            )
        )
    return shown


def _between(values: NDArray, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[D]`` sum of ``values`` in each document (`np.add.reduceat` is wrong for empty documents)."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return running[starts[1:]] - running[starts[:-1]]


def _offsets(text: str, stored: NDArray, tokenizer: Tokenizer, index: int) -> NDArray[np.int64]:
    """``[T, 2]`` first and last+1 character of each token; an appended EOD token has none and is left out."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if len(stored) - len(encoding.ids) not in (0, 1) or not np.array_equal(stored[: len(encoding.ids)], encoding.ids):
        raise MismatchError(
            f"document {index} of the corpus is not the text that was tokenized; prepare the data again"
        )
    return np.array(encoding.offsets, np.int64).reshape(-1, 2)


def _densest(kept: NDArray) -> int:
    """First token of the stretch of `_SHOWN_TOKENS` with the largest sum."""
    if len(kept) <= _SHOWN_TOKENS:
        return 0
    running = np.concatenate([[0.0], np.cumsum(kept, dtype=np.float64)])
    return int(np.argmax(running[_SHOWN_TOKENS:] - running[:-_SHOWN_TOKENS]))


def _pieces(
    text: str, offsets: NDArray[np.int64], window: range, base: int, marks: TokenMarks, full: float
) -> list[Piece]:
    """Pieces of the tokens in ``window``; together they give the text between its ends, gaps included."""
    groups: list[list[int]] = []
    reached = -1
    for token in window:
        begin, end = offsets[token]
        if groups and (begin < reached or begin == end):
            groups[-1].append(token)
        else:
            groups.append([token])
        reached = max(reached, end)
    pieces = []
    for number, group in enumerate(groups):
        is_last = number + 1 == len(groups)
        stop = max(offsets[group, 1]) if is_last else offsets[groups[number + 1][0], 0]
        at = base + np.array(group)
        scores = marks.scores[at].astype(np.float64)
        farthest = scores[np.argmax(np.abs(scores))]
        pieces.append(
            Piece(
                text=text[offsets[group[0], 0] : stop],
                scores=tuple(scores.tolist()),
                shade=_shade(farthest, full),
                selected=bool(marks.selected[at].any()),
                planted=marks.planted is not None and bool(marks.planted[at].any()),
            )
        )
    return pieces


def _shade(score: float, full: float) -> int:
    if full == 0:
        return 0
    return int(np.sign(score) * round(SHADES * min(1.0, abs(score) / full)))
