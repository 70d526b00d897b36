"""Where tokens stand in the text of their documents, and scores moved from one tokenization of it to another.

Every token gets a span on a line that both tokenizations share. A source token's score is spread evenly over its span;
a target token takes the sum of what lies in its own. On the line a document is

    | 1: tokens before the text | its text, byte by byte | 1: tokens after the text |

so a token that starts or ends documents (BOS, EOD) hands its score to its counterpart and never to a word.

Tokenizers do not spell quite the same text: some put a space before a document, some normalize. Where the bytes of a
document differ, surplus spaces at its start are left out; where they still differ, both texts are measured in
characters of their compatibility decomposition (NFKD) without blanks and unprintable characters.

Shapes: D documents, N tokens of them (S source, T target), V ids.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ifguide.data.text.tokenizers import Tokenizer

_TEXT, _HEAD, _TAIL = 0, 1, 2
_SHOWN_CHARACTERS = 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class TextDiffers(Exception):
    """A document is another text in the target than in the source.

    Attributes:
        document: its number among those compared.
        place: what both have in common, and how each goes on.
    """

    def __init__(self, document: int, place: str):
        super().__init__(place)
        self.document, self.place = document, place


@dataclass(frozen=True, eq=False)
class Spelling:
    """Documents as the bytes that their tokens spell.

    Attributes:
        documents: int64[D + 1], where each document starts among the tokens.
        text: of all documents.
        begin, end: int64[N], the bytes of each token.
        frame: int8[N], whether a token belongs to the text or stands before or after it; those have no bytes.
    """

    documents: Ints
    text: bytes
    begin: Ints
    end: Ints
    frame: NDArray[np.int8]

    @property
    def bounds(self) -> Ints:
        """int64[D + 1], where each document starts in the text."""
        return np.concatenate([[0], self.end])[self.documents]


class Speller:
    """A tokenizer's tokens as bytes, whole arrays of ids at a time."""

    def __init__(self, tokenizer: Tokenizer):
        pieces = [tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size)]
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)
        self._lengths = np.array([*map(len, pieces), 0])  # the last is any id beyond the vocabulary
        self._offsets = np.cumsum(self._lengths) - self._lengths
        # what the tokenizer adds to a text by itself
        added, example = set(tokenizer.encode("")), tokenizer.encode("a")
        self._head = _run_length(example, added)
        self._tail = _run_length(example[::-1], added) + 1
        self._opening = np.array(sorted(added), np.int64)
        ends = added if tokenizer.eod is None else added | {tokenizer.eod}
        self._closing = np.array(sorted(ends), np.int64)

    def spell(self, tokens: NDArray[np.integer], documents: Ints) -> Spelling:
        """The text of ``tokens``[N]; ``documents``[D + 1] says where each document starts."""
        ids = np.asarray(tokens, np.int64)
        frame = self._frame(ids, documents)
        beyond = len(self._lengths) - 1
        known = np.where((ids < 0) | (ids > beyond), beyond, ids)
        lengths = np.where(frame == _TEXT, self._lengths[known], 0)
        end = np.cumsum(lengths)
        begin = end - lengths
        places = np.repeat(self._offsets[known] - begin, lengths)
        places += np.arange(len(places))
        return Spelling(documents, self._bytes[places].tobytes(), begin, end, frame)

    def _frame(self, ids: Ints, documents: Ints) -> NDArray[np.int8]:
        frame = np.full(len(ids), _TEXT, np.int8)
        first, last = documents[:-1], documents[1:] - 1
        for depth, side, members, start, step in (
            (self._head, _HEAD, self._opening, first, 1),
            (self._tail, _TAIL, self._closing, last, -1),
        ):
            at = start[last >= first]
            stop = (last if step > 0 else first)[last >= first]
            for _ in range(depth):
                belongs = (frame[at] == _TEXT) & np.isin(ids[at], members)
                frame[at[belongs]] = side
                going = belongs & (at != stop)
                at, stop = at[going] + step, stop[going]
        return frame


@dataclass(frozen=True, eq=False)
class Line:
    """Spans of the tokens of one side.

    Attributes:
        begin, end: float64[N], ascending; equal where a token has no text.
        frame: int8[N], as in `Spelling`.
    """

    begin: Floats
    end: Floats
    frame: NDArray[np.int8]


def align(source: Spelling, target: Spelling) -> tuple[Line, Line, int]:
    """Both sides on one line, and how many documents had to be compared without blanks.

    Raises:
        TextDiffers: the texts of a document do not agree.
    """
    count = len(source.documents) - 1
    sides = (source, target)
    bounds = [side.bounds.tolist() for side in sides]
    length = np.zeros(count)
    surplus = np.zeros((2, count), np.int64)
    reduced: dict[int, tuple[_Reduced, _Reduced]] = {}
    for document in range(count):
        texts = [side.text[starts[document] : starts[document + 1]] for side, starts in zip(sides, bounds)]
        if texts[0] != texts[1]:
            bare = [text.lstrip(b" ") for text in texts]
            if bare[0] == bare[1]:
                spaces = [len(text) - len(bare[0]) for text in texts]
                surplus[:, document] = np.array(spaces) - min(spaces)
                texts[0] = texts[0][surplus[0, document] :]
            else:
                pair = _Reduced(texts[0]), _Reduced(texts[1])
                if pair[0].text != pair[1].text:
                    raise TextDiffers(document, _first_difference(*pair))
                reduced[document] = pair
                length[document] = len(pair[0].text)
                continue
        length[document] = len(texts[0])
    base = np.cumsum(length + 2) - length - 2
    lines = []
    for index, side in enumerate(sides):
        views = {document: pair[index] for document, pair in reduced.items()}
        lines.append(_place(side, surplus[index], views, base, length))
    return lines[0], lines[1], len(reduced)


def move(scores: NDArray, source: Line, target: Line) -> tuple[Floats, float]:
    """Scores [T] of the target's tokens, and the sum of those that found no counterpart.

    That can happen to tokens before and after the text only, or where the target has no text at all. A token without
    text gives its score to the text token that follows in its document, or to the last.
    """
    scores = np.asarray(scores, np.float64)
    wide_s, wide_t = np.flatnonzero(source.end > source.begin), np.flatnonzero(target.end > target.begin)
    begin_s, end_s = source.begin[wide_s], source.end[wide_s]
    begin_t, end_t = target.begin[wide_t], target.end[wide_t]
    # a stable sort merges runs that are sorted already
    cuts = np.sort(np.concatenate([begin_s, end_s, begin_t, end_t]), kind="stable")
    left, width = cuts[:-1], np.diff(cuts)
    giver, given_out = _holder(left, begin_s, end_s)
    piece = given_out & (width > 0)
    left, width, giver = left[piece], width[piece], giver[piece]
    given = scores[wide_s[giver]] * (width / (end_s - begin_s)[giver])
    taker, taken = _holder(left, begin_t, end_t)
    result = np.zeros(len(target.begin))
    result += np.bincount(wide_t[taker[taken]], given[taken], len(result))
    lost = float(given[~taken].sum())
    narrow = np.flatnonzero((source.end == source.begin) & (scores != 0))
    if len(narrow):
        heir, found = _heirs(source.begin[narrow], target, wide_t)
        result += np.bincount(heir[found], scores[narrow[found]], len(result))
        lost += float(scores[narrow[~found]].sum())
    return result, lost


def _run_length(ids: list[int], members: set[int]) -> int:
    """How many of the first ``ids`` are members."""
    return next((at for at, index in enumerate(ids) if index not in members), len(ids))


def _holder(places: Floats, begin: Floats, end: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Which of the spans holds each place, and whether one does."""
    if not len(begin):
        return np.zeros(len(places), np.int64), np.zeros(len(places), bool)
    which = np.minimum(np.searchsorted(end, places, side="right"), len(end) - 1)
    return which, (begin[which] <= places) & (places < end[which])


def _heirs(places: Floats, target: Line, wide: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """The text token that begins at or holds each place, else the one that ends there, and whether there is one."""
    text = wide[target.frame[wide] == _TEXT]
    if not len(text):
        return np.zeros(len(places), np.int64), np.zeros(len(places), bool)
    begin, end = target.begin[text], target.end[text]
    after, holds = _holder(places, begin, end)
    before = np.minimum(np.searchsorted(end, places, side="left"), len(end) - 1)
    return text[np.where(holds, after, before)], holds | (end[before] == places)


def _place(side: Spelling, surplus: Ints, reduced: dict[int, _Reduced], base: Floats, length: Floats) -> Line:
    """Spans of one side, whose documents start at ``base`` and have texts of ``length`` on the line."""
    counts = np.diff(side.documents)
    offset = np.repeat(side.bounds[:-1] + surplus, counts)
    begin = np.maximum(side.begin - offset, 0).astype(np.float64)
    end = np.maximum(side.end - offset, 0).astype(np.float64)
    for document, view in reduced.items():
        tokens = slice(side.documents[document], side.documents[document + 1])
        begin[tokens], end[tokens] = view.places(begin[tokens]), view.places(end[tokens])
    start, stop = np.repeat(base, counts), np.repeat(base + 1 + length, counts)
    begin, end = begin + start + 1, end + start + 1
    for kind, slot in ((_HEAD, start), (_TAIL, stop)):
        which = np.flatnonzero(side.frame == kind)
        if len(which):
            owner = np.searchsorted(side.documents, which, side="right") - 1
            _, first, members = np.unique(owner, return_index=True, return_counts=True)
            rank = np.arange(len(which)) - np.repeat(first, members)
            of = np.repeat(members, members)
            begin[which], end[which] = slot[which] + rank / of, slot[which] + (rank + 1) / of
    return Line(begin, end, side.frame)


class _Reduced:
    """A text without what normalizers change, and where its bytes are in it.

    Attributes:
        text: decomposed, without blanks and unprintable characters.
    """

    def __init__(self, raw: bytes):
        characters = raw.decode("utf-8", "surrogateescape")
        pieces = [_reduced(character) for character in characters]
        # marks of one letter may come in another order
        self.text = unicodedata.normalize("NFKD", "".join(pieces))
        self._raw = raw
        sizes = [len(character.encode("utf-8", "surrogateescape")) for character in characters]
        self._bytes = np.concatenate([[0], np.cumsum(sizes)])
        self._characters = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])

    def places(self, offsets: Floats) -> Floats:
        """Where in ``text`` these bytes of the document are; inside of a character in proportion."""
        return np.interp(offsets, self._bytes, self._characters)

    def around(self, place: int) -> tuple[str, str]:
        """The document's text just before, and from, character ``place`` of ``text``."""
        at = int(self._bytes[np.searchsorted(self._characters, place, side="right") - 1])
        before, after = (part.decode("utf-8", "replace") for part in (self._raw[:at], self._raw[at:]))
        return before[-_SHOWN_CHARACTERS:], after[:_SHOWN_CHARACTERS]


def _first_difference(source: _Reduced, target: _Reduced) -> str:
    length = min(len(source.text), len(target.text))
    place = next((at for at in range(length) if source.text[at] != target.text[at]), length)
    (before, ours), (_, theirs) = source.around(place), target.around(place)
    ways = [repr(text) if text else "its end" for text in (ours, theirs)]
    return f"after {before!r} come {ways[0]} and {ways[1]}" if before else f"they begin with {ways[0]} and {ways[1]}"


@lru_cache(maxsize=1 << 16)
def _reduced(character: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", character) if not _is_blank(part))


def _is_blank(character: str) -> bool:
    """White space, SentencePiece's mark for it, controls; not the stand-ins of bytes that are no text."""
    return character in " ▁" or not (character.isprintable() or "\udc80" <= character <= "\udcff")
