"""Where lines and sentences end, from the bytes that a document's tokens spell (M3b).

A line ends with a newline. A sentence ends with a newline; with . ! ? (repeats, closing quotes and brackets included)
before white space or the end of the document; and with 。！？. The token that holds the last byte of such a separator
ends the line or sentence. An end-of-document token counts as a newline, wherever it stands.

Shapes: D documents, N tokens of them, V ids.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
from numpy.typing import NDArray

from ifguide.data.passages.bits import LINE_END, SENTENCE_END
from ifguide.data.text.reader import TextReader

RULES = 1  # version of the rule above: boundaries of another one are made again

_NEWLINE = b"\n"
_WIDE_STOPS = "。！？"
_CLOSERS = "\"')]}»”’›」』）】》"
_WIDE_SPACES = (
    "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)


def _any_of(characters: str) -> bytes:
    return b"(?:" + b"|".join(re.escape(character.encode()) for character in characters) + b")"


# the look-behind keeps a run of stops from being tried again at each of them
_SENTENCE_END = re.compile(
    b"(?<![.!?])[.!?]+" + _any_of(_CLOSERS) + rb"*(?=[\s\x1c-\x1f]|\Z|" + _any_of(_WIDE_SPACES) + b")"
    b"|" + _any_of(_WIDE_STOPS) + b"(?:[.!?]|" + _any_of(_WIDE_STOPS + _CLOSERS) + b")*"
)  # fmt: skip


class TokenText:
    """The bytes that each id spells, whole arrays of ids at a time.

    Args:
        reader: that the data was made with.
        between: what the end-of-document token spells; the template's other tokens spell nothing.
    """

    def __init__(self, reader: TextReader, between: bytes = _NEWLINE):
        silent = {*reader.prefix, *reader.suffix}
        pieces = [b"" if index in silent else reader.token_bytes(index) for index in range(reader.vocab_size)]
        if reader.eod is not None and reader.eod < len(pieces):
            pieces[reader.eod] = between
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)
        self._lengths = np.array([*map(len, pieces), 0])  # the last is any id beyond the vocabulary
        self._offsets = np.cumsum(self._lengths) - self._lengths

    def spell(self, tokens: NDArray[np.integer]) -> tuple[bytes, NDArray[np.int64]]:
        """(the text of ``tokens``[N], int64[N]: where in it each token ends)."""
        ids = np.asarray(tokens, np.int64)
        beyond = len(self._lengths) - 1
        ids = np.where((ids < 0) | (ids > beyond), beyond, ids)
        lengths = self._lengths[ids]
        ends = np.cumsum(lengths)
        places = np.repeat(self._offsets[ids] - (ends - lengths), lengths)
        places += np.arange(len(places))
        return self._bytes[places].tobytes(), ends


def boundaries_of(tokens: NDArray[np.integer], starts: NDArray[np.int64], text: TokenText) -> NDArray[np.uint8]:
    """`LINE_END` and `SENTENCE_END` of each token, uint8[N].

    Args:
        tokens: ids [N] of whole documents.
        starts: int64[D + 1], where each document starts among them.
    """
    spelled, ends = text.spell(tokens)
    marks = np.zeros(len(tokens), np.uint8)
    newlines = np.flatnonzero(np.frombuffer(spelled, np.uint8) == _NEWLINE[0])
    marks[np.searchsorted(ends, newlines, side="right")] = LINE_END | SENTENCE_END
    bounds = np.concatenate([[0], ends])[starts].tolist()
    stops: list[int] = []
    for begin, end in itertools.pairwise(bounds):
        stops += [begin + match.end() - 1 for match in _SENTENCE_END.finditer(spelled[begin:end])]
    marks[np.searchsorted(ends, stops, side="right")] |= SENTENCE_END
    return marks
