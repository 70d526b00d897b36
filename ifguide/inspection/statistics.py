"""What masks select: by document, position, token and phrase, and how far several masks agree.

Everything is counted in one pass over files of any size. Memory grows with the documents, the vocabulary and
`MAX_PHRASES`, not with the tokens, and no number depends on where the chunks end.

Shapes: N tokens, D documents, V vocabulary, n tokens of one document, t offset of a token in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned
from ifguide.data.indexed import TokenDataset
from ifguide.errors import InputError
from ifguide.selection.source import read_values

CHUNK_TOKENS = 1 << 22
MAX_PHRASES = 1 << 20  # distinct phrases counted at a time
DECILES = 10
_MAX_VOCABULARY = 1 << 26
_SHARE_EDGES = np.linspace(0, 1, 11)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of one mask.

    Attributes:
        num_tokens, num_selected: N, and of these the selected.
        strength: mean strength of the selected tokens (1 for a binary mask).
        shares: float64[D], selected share of each document; 0 of an empty one.
        selected_by_decile, tokens_by_decile: int64[10], by floor(10 t / n).
        selected_by_offset, tokens_by_offset: int64[B], t in [0, 1), [1, 2), [2, 4), [4, 8) ...
        selected_by_id, tokens_by_id: int64[V], or None without tokens.
        phrases: the most frequent maximal runs of selected tokens in a document: (ids, count), or None without tokens.
        phrases_missed: a count may be too small by this much: 0 unless there are more than `MAX_PHRASES` phrases.
        scores: mean of the selected and of the other tokens' scores, or None.
    """

    num_tokens: int
    num_selected: int
    strength: float
    shares: NDArray[np.float64]
    selected_by_decile: NDArray[np.int64]
    tokens_by_decile: NDArray[np.int64]
    selected_by_offset: NDArray[np.int64]
    tokens_by_offset: NDArray[np.int64]
    selected_by_id: NDArray[np.int64] | None
    tokens_by_id: NDArray[np.int64] | None
    phrases: list[tuple[tuple[int, ...], int]] | None
    phrases_missed: int
    scores: dict[str, float] | None

    def share_histogram(self) -> list[int]:
        """Documents with a selected share of 0, in (0, 0.1], (0.1, 0.2] ... (0.9, 1]."""
        filled = self.shares[self.shares > 0]
        bins = np.clip(np.searchsorted(_SHARE_EDGES, filled, side="left") - 1, 0, DECILES - 1)
        return [int(np.count_nonzero(self.shares == 0)), *np.bincount(bins, minlength=DECILES).tolist()]


@dataclass(frozen=True)
class Overlap:
    """Two masks of the same tokens.

    Attributes:
        both, first, second, tokens: numbers of tokens selected by both, by each, and in all.
    """

    both: int
    first: int
    second: int
    tokens: int

    def measures(self) -> dict[str, float | None]:
        """``jaccard``; ``of_first``, ``of_second``: the share of each that the other selects too; ``phi``: the
        correlation of the two as 0/1 variables. None where a mask is empty (or, for phi, full)."""
        either = self.first + self.second - self.both
        spread = (
            float(self.first) * (self.tokens - self.first) * float(self.second) * (self.tokens - self.second)
        )  # as floats: four factors of 1e9 overflow 64 bits, not a float
        together = float(self.both) * self.tokens - float(self.first) * self.second
        return {
            "jaccard": self.both / either if either else None,
            "of_first": self.both / self.first if self.first else None,
            "of_second": self.both / self.second if self.second else None,
            "phi": together / spread**0.5 if spread > 0 else None,
        }


class Phrases:
    """Counts of phrases, of which at most `MAX_PHRASES` are kept: the rarest make room, and what they may have lost
    is known (Misra and Gries, 1982)."""

    def __init__(self, limit: int = MAX_PHRASES):
        self._limit = limit
        self._counts: Counter[bytes] = Counter()
        self.missed = 0

    def add(self, phrase: bytes) -> None:
        self._counts[phrase] += 1
        if len(self._counts) > self._limit:
            floor = int(np.median(list(self._counts.values())))
            self._counts = Counter({key: count - floor for key, count in self._counts.items() if count > floor})
            self.missed += floor

    def most_common(self, count: int) -> list[tuple[tuple[int, ...], int]]:
        """Most frequent first; ties by the ids."""
        found = [(tuple(np.frombuffer(key, np.int64).tolist()), number) for key, number in self._counts.items()]
        return sorted(found, key=lambda item: (-item[1], item[0]))[:count]


class _Collector:
    """One mask's statistics, chunk by chunk."""

    def __init__(self, mask: Aligned, tokens: TokenDataset | None, top: int):
        self._starts, self._tokens, self._top = mask.starts, tokens, top
        lengths = np.diff(mask.starts)
        self._lengths = lengths
        self.by_document = np.zeros(len(lengths), np.int64)
        self.by_decile = np.zeros(DECILES, np.int64)
        self._num_offsets = 1 + int(lengths.max()).bit_length()
        self.by_offset = np.zeros(self._num_offsets, np.int64)
        self.by_id = self.all_by_id = np.zeros(0, np.int64)
        self.phrases = Phrases()
        self._open_run: list[NDArray] = []
        self._last = -2  # position of the last selected token of the chunk before
        self.codes = 0
        self._sums = np.zeros(2)  # of the scores of the selected and of the other tokens
        self._has_scores = False

    def add(self, begin: int, codes: NDArray[np.uint8], ids: NDArray | None, scores: NDArray | None) -> None:
        """The tokens from position ``begin`` on."""
        selected = codes > 0
        at = np.flatnonzero(selected) + begin
        documents = np.searchsorted(self._starts, at, side="right") - 1
        offsets = at - self._starts[documents]
        if len(documents):
            found = np.bincount(documents - documents[0])
            self.by_document[documents[0] : documents[0] + len(found)] += found
        self.by_decile += np.bincount(DECILES * offsets // self._lengths[documents], minlength=DECILES)
        # frexp's exponent is the number of binary digits: 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3
        self.by_offset += np.bincount(np.frexp(offsets)[1], minlength=self._num_offsets)
        self.codes += int(codes.sum(dtype=np.int64))
        if scores is not None:
            self._has_scores = True
            self._sums += [part.sum(dtype=np.float64) for part in (scores[selected], scores[~selected])]
        if ids is not None:
            _check_ids(ids)
            self.all_by_id = _grown_sum(self.all_by_id, np.bincount(ids))
            self.by_id = _grown_sum(self.by_id, np.bincount(ids[selected]))
            self._add_runs(begin, at, documents, ids)

    def _add_runs(self, begin: int, at: NDArray[np.int64], documents: NDArray[np.int64], ids: NDArray) -> None:
        """Count the runs that end; one that reaches the chunk's end stays open."""
        if not len(at):
            self._close_run()
            return
        breaks = np.flatnonzero((np.diff(at) > 1) | (np.diff(documents) > 0)) + 1
        runs = np.split(at, breaks)
        if at[0] != self._last + 1 or at[0] == self._starts[documents[0]]:
            self._close_run()
        for number, run in enumerate(runs):
            if number:
                self._close_run()
            self._open_run.append(ids[run - begin].astype(np.int64))
        self._last = int(at[-1])

    def _close_run(self) -> None:
        if self._open_run:
            self.phrases.add(b"".join(part.tobytes() for part in self._open_run))
            self._open_run = []

    def finish(self) -> Statistics:
        self._close_run()
        num_tokens, num_selected = int(self._starts[-1]), int(self.by_document.sum())
        known = self._tokens is not None
        by_id = np.zeros_like(self.all_by_id)
        by_id[: len(self.by_id)] = self.by_id
        return Statistics(
            num_tokens=num_tokens,
            num_selected=num_selected,
            strength=self.codes / num_selected if num_selected else 0.0,
            shares=self.by_document / np.maximum(self._lengths, 1),
            selected_by_decile=self.by_decile,
            tokens_by_decile=_decile_sizes(self._lengths),
            selected_by_offset=self.by_offset,
            tokens_by_offset=_offset_sizes(self._lengths, self._num_offsets),
            selected_by_id=by_id if known else None,
            tokens_by_id=self.all_by_id if known else None,
            phrases=self.phrases.most_common(self._top) if known else None,
            phrases_missed=self.phrases.missed,
            scores=self._score_means(num_tokens, num_selected),
        )

    def _score_means(self, num_tokens: int, num_selected: int) -> dict[str, float] | None:
        if not self._has_scores:
            return None
        means = self._sums / np.maximum([num_selected, num_tokens - num_selected], 1)
        return {"selected_mean": float(means[0]), "other_mean": float(means[1])}


def collect(
    masks: Sequence[Aligned],
    tokens: TokenDataset | None,
    scores: Aligned | None,
    top: int,
    chunk_tokens: int = CHUNK_TOKENS,
) -> tuple[list[Statistics], dict[tuple[int, int], Overlap]]:
    """Statistics of each mask and the overlap of each pair, by their places in ``masks``.

    Args:
        masks: of the same tokens.
        tokens: those tokens, or None to leave out what needs their ids.
        scores: of those tokens, or None.
        top: phrases to keep.

    Raises:
        InputError: a token id that no vocabulary has.
    """
    collectors = [_Collector(mask, tokens, top) for mask in masks]
    both = dict.fromkeys(combinations(range(len(masks)), 2), 0)
    for begin, end in _spans(len(masks[0].values), chunk_tokens):
        ids = None if tokens is None else read_values(tokens.tokens, begin, end)
        values = None if scores is None else read_values(scores.values, begin, end)
        codes = [read_values(mask.values, begin, end) for mask in masks]
        for collector, chunk in zip(collectors, codes):
            collector.add(begin, chunk, ids, values)
        for first, second in both:
            both[first, second] += int(np.count_nonzero((codes[first] > 0) & (codes[second] > 0)))
    found = [collector.finish() for collector in collectors]
    sizes = [statistics.num_selected for statistics in found]
    overlaps = {
        (first, second): Overlap(count, sizes[first], sizes[second], found[0].num_tokens)
        for (first, second), count in both.items()
    }
    return found, overlaps


def _check_ids(ids: NDArray) -> None:
    """
    Raises:
        InputError: an id that no vocabulary has: counting by id would need that much memory.
    """
    for worst in (int(ids.min()), int(ids.max())):
        if not 0 <= worst < _MAX_VOCABULARY:
            raise InputError(f"the data holds the token id {worst}; check it with `ifguide verify`")


def _spans(total: int, chunk_tokens: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, total, chunk_tokens):
        yield begin, min(begin + chunk_tokens, total)


def _grown_sum(total: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``total`` + ``counts``, the shorter filled up with zeros."""
    if len(counts) > len(total):
        total, counts = counts.copy(), total
    total[: len(counts)] += counts
    return total


def _decile_sizes(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens with floor(10 t / n) = d over all documents, int64[10]: t runs from ceil(n d / 10)."""
    edges = -(-lengths[:, None] * np.arange(DECILES + 1) // DECILES)
    return np.diff(edges, axis=1).sum(axis=0)


def _offset_sizes(lengths: NDArray[np.int64], num_bins: int) -> NDArray[np.int64]:
    """Tokens with t in [0, 1), [1, 2), [2, 4) ... over all documents, int64[num_bins]."""
    edges = np.concatenate([[0], 2 ** np.arange(num_bins)])
    return np.array([int(np.clip(lengths - low, 0, high - low).sum()) for low, high in pairwise(edges)])
