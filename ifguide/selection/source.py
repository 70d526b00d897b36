"""Scores and tokens of several datasets, read one after another in chunks of bounded size.

Positions are *global*: tokens of the first corpus first, then those of the second, and so on.

Shapes: K corpora, D documents and N tokens in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import InputError

_LOWEST = np.finfo(np.float32).min
_BITS_SET = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)

CHUNK_TOKENS = 1 << 19  # its arrays stay in a core's cache: twice as fast as 1 << 22


@dataclass(frozen=True, eq=False)
class ScoredCorpus:
    """One scored dataset.

    Attributes:
        name: for messages.
        scores: float32[n], on disk (a whole memory map) or in memory.
        starts: int64[d + 1], offset of each document's first token; ``starts[d] == n``.
        tokens: [n] token ids; None where no token is left out.
        eod: id of the end-of-document token, which is neither counted nor selected; None leaves nothing out.
        boundaries: uint8[n], where lines and sentences end (`ifguide.data.passages.bits`); None where nothing asks.
        ignored: uint8[⌈n / 8⌉], a bit for each token (`numpy.packbits`) that counts for nothing: it has no part in τ
            and in no mean, and is not selected; None where there is none.
    """

    name: str
    scores: NDArray[np.float32]
    starts: NDArray[np.int64]
    tokens: NDArray[np.integer] | None = None
    eod: int | None = None
    boundaries: NDArray[np.uint8] | None = None
    ignored: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Span:
    """The tokens [begin, end) of one corpus; ``offset`` is the global position of ``begin``."""

    corpus: int
    begin: int
    end: int
    offset: int

    def __len__(self) -> int:
        return self.end - self.begin


class Source:
    """All corpora as one sequence of documents.

    Attributes:
        corpora: as given.
        offsets: int64[K + 1], global position of each corpus' first token.
        starts: int64[D + 1], global position of each document's first token.
        num_ignored: tokens that count for nothing.

    Raises:
        InputError: there is no token at all.
    """

    def __init__(self, corpora: Sequence[ScoredCorpus], chunk_tokens: int = CHUNK_TOKENS):
        self.corpora = list(corpora)
        self._chunk_tokens = chunk_tokens
        sizes = [int(corpus.starts[-1]) for corpus in self.corpora]
        if not sum(sizes):
            raise InputError("there are no scores to select from")
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        begins = [corpus.starts[:-1] + offset for corpus, offset in zip(self.corpora, self.offsets)]
        self.starts = np.concatenate([*begins, self.offsets[-1:]])
        bits = [corpus.ignored for corpus in self.corpora if corpus.ignored is not None]
        self.num_ignored = sum(int(_BITS_SET[part].sum()) for part in bits)

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    def spans(self, corpus: int | None = None) -> Iterator[Span]:
        """Chunks that cover everything, or one corpus, in order; none holds tokens of two corpora."""
        for k in range(len(self.corpora)) if corpus is None else [corpus]:
            offset, size = int(self.offsets[k]), int(self.offsets[k + 1] - self.offsets[k])
            for begin in range(0, size, self._chunk_tokens):
                yield Span(k, begin, min(begin + self._chunk_tokens, size), offset + begin)

    def scores(self, span: Span) -> NDArray[np.float32]:
        """float32[len(span)]; those of ignored tokens are the lowest that there are."""
        corpus = self.corpora[span.corpus]
        values = read_values(corpus.scores, span.begin, span.end)
        ignored = _ignored(corpus, span.begin, span.end)
        return values if ignored is None else np.where(ignored, _LOWEST, values)

    def rank_of(self, q: float) -> tuple[int, float]:
        """Where the ``q``-quantile of the tokens that are not ignored lies in the order of all scores: (place of its
        lower neighbour, share of the way to the next)."""
        at = q * max(0, self.num_tokens - self.num_ignored - 1)
        below = math.floor(at)
        return self.num_ignored + below, at - below

    def boundaries(self, span: Span) -> NDArray[np.uint8]:
        """uint8[len(span)]"""
        values = self.corpora[span.corpus].boundaries
        assert values is not None
        return read_values(values, span.begin, span.end)

    def left_out(self, corpus: int, begin: int, end: int) -> NDArray[np.bool_] | None:
        """bool[end - begin]: EOD tokens and ignored ones among the tokens [begin, end) of a corpus; None where nothing
        is left out."""
        found = self.corpora[corpus]
        ignored = _ignored(found, begin, end)
        if found.tokens is None or found.eod is None:
            return ignored
        is_eod = read_values(found.tokens, begin, end) == found.eod
        return is_eod if ignored is None else is_eod | ignored

    def is_eligible(self, span: Span) -> NDArray[np.bool_] | None:
        """bool[len(span)], as `eligible` of all; None where no token is left out."""
        found = self.left_out(span.corpus, span.begin, span.end)
        return None if found is None else ~found

    def eligible(self, span: Span, at: NDArray[np.integer]) -> NDArray[np.bool_]:
        """bool[len(at)]: whether the tokens at these places of ``span`` may be counted and selected."""
        found = self.is_eligible(span) if len(at) else None
        return np.ones(len(at), bool) if found is None else found[at]

    def count_eligible(self, span: Span) -> int:
        """How many tokens of ``span`` may be counted and selected."""
        found = self.is_eligible(span)
        return len(span) if found is None else int(np.count_nonzero(found))

    def document(self, number: int) -> tuple[NDArray[np.integer], int | None]:
        """(token ids, EOD id) of the ``number``-th document of all."""
        corpus, begin = self._locate(int(self.starts[number]))
        assert corpus.tokens is not None
        length = int(self.starts[number + 1] - self.starts[number])
        return read_values(corpus.tokens, begin, begin + length), corpus.eod

    def where(self, position: int) -> str:
        """'NAME: document D, token T' of a global position."""
        corpus, at = self._locate(position)
        document = int(np.searchsorted(corpus.starts, at, side="right")) - 1
        return f"{corpus.name}: document {document}, token {at - int(corpus.starts[document])}"

    def _locate(self, position: int) -> tuple[ScoredCorpus, int]:
        """The corpus that holds a global position, and the position in it."""
        k = int(np.searchsorted(self.offsets[:-1], position, side="right")) - 1
        return self.corpora[k], position - int(self.offsets[k])


def _ignored(corpus: ScoredCorpus, begin: int, end: int) -> NDArray[np.bool_] | None:
    if corpus.ignored is None:
        return None
    first = begin // 8
    bits = np.unpackbits(corpus.ignored[first : -(-end // 8)])
    return bits[begin - 8 * first : end - 8 * first].astype(bool)


def read_values(values: NDArray, begin: int, end: int) -> NDArray:
    """``values[begin:end]``; of a memory map by a plain read, because every page of a map that was touched counts
    as memory of the process: the whole file in the end.

    Raises:
        InputError: the file became shorter since it was opened.
    """
    if not isinstance(values, np.memmap):
        return values[begin:end]
    skip = values.offset + begin * values.itemsize
    piece = np.fromfile(str(values.filename), values.dtype, end - begin, offset=skip)
    if len(piece) != end - begin:
        raise InputError(f"{values.filename} became shorter while it was read; write it again")
    return piece
