"""The exact quantile of any number of float32 scores in two passes and one megabyte.

A float32's 32 bits, taken as two halves, sort it: the high half (sign, exponent, seven bits of the
mantissa) names one of 65,536 bins, the low half a place in the bin. Pass 1 counts the bins, which tells
in which bin an order statistic lies and how many scores come before; pass 2 counts the low halves there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import NumericsError
from ifguide.selection.source import Source, Span

_HALF = 1 << 16
# negative floats sort by descending bits, and come before the others
_NEGATIVE = np.arange(_HALF - 1, _HALF // 2 - 1, -1)
_ASCENDING = np.concatenate([_NEGATIVE, np.arange(_HALF // 2)])
_EXPONENT = 0x7F80  # all ones in a NaN and in an infinity
_NOT_FINITE = (np.arange(_HALF) & _EXPONENT) == _EXPONENT


def quantile(source: Source, q: float, on_span: Callable[[Span], object] = lambda span: None) -> float:
    """The ``q``-quantile of all scores, equal to ``np.quantile(float64(scores), q)``; -0 counts as 0.

    Raises:
        NumericsError: a score is NaN or infinite; names the first.
    """
    below, share = source.rank_of(q)
    ranks = [below, min(below + 1, source.num_tokens - 1)]
    low, high = _order_statistics(source, ranks, on_span)
    return interpolate(low, high, share)


def interpolate(low: float, high: float, share: float) -> float:
    """numpy's linear interpolation, to the last bit: measured from the nearer end."""
    step = high - low
    return low + step * share if share < 0.5 else high - step * (1 - share)


def _order_statistics(source: Source, ranks: list[int], on_span: Callable[[Span], object]) -> list[float]:
    """The scores at these places (0 = smallest) of the sorted scores."""
    high_counts = np.zeros(_HALF, np.int64)
    for span in source.spans():
        counts = np.bincount(_bits(source, span) >> 16, minlength=_HALF)
        if counts[_NOT_FINITE].any():
            refuse_non_finite(source, span, source.scores(span))
        high_counts += counts
        on_span(span)
    places = [_find(high_counts, _ASCENDING, rank) for rank in ranks]

    low_counts = {high: np.zeros(_HALF, np.int64) for high, _ in places}
    for span in source.spans():
        bits = _bits(source, span)
        for high, counts in low_counts.items():
            lows = bits - np.uint32(high << 16)  # wraps around outside the bin
            counts += np.bincount(lows[lows < _HALF], minlength=_HALF)
        on_span(span)

    values = []
    for high, rank in places:
        order = np.arange(_HALF) if high < _HALF // 2 else np.arange(_HALF - 1, -1, -1)
        low, _ = _find(low_counts[high], order, rank)
        value = np.array([high << 16 | low], np.uint32).view(np.float32)[0]
        values.append(float(value) + 0.0)
    return values


def _find(counts: NDArray[np.int64], order: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """(bin, rank inside it) of the ``rank``-th value, where the bins sort as ``order`` says."""
    running = np.cumsum(counts[order])
    place = int(np.searchsorted(running, rank, side="right"))
    found = int(order[place])
    return found, rank - int(running[place] - counts[found])


def _bits(source: Source, span: Span) -> NDArray[np.uint32]:
    return source.scores(span).view(np.uint32)


def refuse_non_finite(source: Source, span: Span, scores: NDArray[np.float32]) -> NoReturn:
    """Name the first score of ``span`` that is NaN or infinite."""
    first = int(np.flatnonzero(~np.isfinite(scores))[0])
    raise NumericsError(f"scores {source.where(span.offset + first)}: {scores[first]}; score the data again")
