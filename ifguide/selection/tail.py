"""τ and the tokens above it, exactly, in one pass over the scores.

A sample says where τ will be, and the pass keeps every score from a little below there: the kept scores
contain τ's two neighbours, and all toxic tokens. Only the number of the others matters. Where the sample
was misleading, two more passes find τ from nothing (`ifguide.selection.quantile`).

Shapes: N tokens, C toxic tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.quantile import interpolate, quantile, refuse_non_finite
from ifguide.selection.source import Source, Span, read_values

# one document is much like itself, so the sample is many short pieces
SAMPLE_PIECES, SAMPLE_PIECE = 1024, 1024
_SURPLUS = 1.25  # scores kept, as a multiple of the share above τ
_MOST_KEPT = 4.0  # the same multiple, where the pass gives up on its sample


def toxic_tail(
    source: Source, q: float, on_span: Callable[[Span], object]
) -> tuple[float, NDArray[np.int64], NDArray[np.float32]]:
    """(τ, the ``q``-quantile of all scores; positions int64[C] and scores float32[C] of the eligible tokens above it).

    Raises:
        NumericsError: a score is NaN or infinite; names the first.
    """
    below, share = source.rank_of(q)
    floor = np.float32(-np.inf) if q == 0 else _floor(source, q)
    most_kept = max(_MOST_KEPT * (1 - q), 0.001) * source.num_tokens + SAMPLE_PIECES * SAMPLE_PIECE
    positions, scores, allowed, kept = [], [], [], 0
    for span in source.spans():
        values = source.scores(span)
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):
            refuse_non_finite(source, span, values)
        if kept <= most_kept:
            place = np.flatnonzero(values >= floor)
            kept += len(place)
            positions.append(place + span.offset)
            scores.append(values[place])
            allowed.append(source.eligible(span, place))
        on_span(span)
    first = below - (source.num_tokens - kept)  # rank of τ's lower neighbour among the kept scores
    if kept > most_kept or first < 0:
        positions.clear()
        scores.clear()
        threshold = quantile(source, q)
        return threshold, *toxic_tokens(source, threshold)
    tail, eligible = np.concatenate(scores), np.concatenate(allowed)
    second = min(first + 1, kept - 1)
    low, high = np.partition(tail, [first, second])[[first, second]].astype(np.float64) + 0.0  # -0 counts as 0
    threshold = interpolate(float(low), float(high), share)
    toxic = (tail > _limit(threshold)) & eligible
    return threshold, np.concatenate(positions)[toxic], tail[toxic]


def toxic_tokens(
    source: Source, threshold: float, on_span: Callable[[Span], object] = lambda span: None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(positions int64[C], scores float32[C]) of the eligible tokens above a known τ."""
    limit = _limit(threshold)
    positions, scores = [], []
    for span in source.spans():
        values = source.scores(span)
        at = np.flatnonzero(values > limit)
        at = at[source.eligible(span, at)]
        positions.append(at + span.offset)
        scores.append(values[at])
        on_span(span)
    return np.concatenate(positions), np.concatenate(scores)


def _floor(source: Source, q: float) -> np.float32:
    """A score that a little more than the share 1 - q of the scores reach, judging by a sample."""
    pieces = []
    for corpus in source.corpora:
        size = int(corpus.starts[-1])
        share = max(1, round(SAMPLE_PIECES * size / source.num_tokens))
        for begin in np.unique(np.linspace(0, max(0, size - SAMPLE_PIECE), share).astype(np.int64)):
            pieces.append(read_values(corpus.scores, int(begin), min(int(begin) + SAMPLE_PIECE, size)))
    sample = np.concatenate(pieces)
    rank = math.floor(max(0.0, 1 - _SURPLUS * (1 - q)) * (len(sample) - 1))
    return np.partition(sample, rank)[rank]


def _limit(threshold: float) -> np.float32:
    """x > τ in float64, for a float32 x, is x > the largest float32 that is not above τ; that needs no cast."""
    limit = np.float32(threshold)
    return np.nextafter(limit, np.float32(-np.inf)) if float(limit) > threshold else limit
