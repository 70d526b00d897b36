"""From selected tokens to mask codes, one chunk at a time.

Shapes: A admitted centres, by place.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.algorithm import Selection, first_claims
from ifguide.selection.quantile import interpolate
from ifguide.selection.source import Source, Span

_TOP_QUANTILE = 0.999  # of the selected scores gets the full strength: a single outlier must not pale all others


def graded_strengths(selection: Selection) -> NDArray[np.uint8]:
    """Codes 1..255 of the admitted centres by how far they lie above τ (M4, graded encoding), uint8[A].

    τ maps to 1, the 0.999 quantile of the selected tokens' scores to 255, clipped; a neighbour counts, and
    is painted, with the score of the centre that brought it in.
    """
    scores = selection.scores.astype(np.float64)
    if not len(scores):
        return np.zeros(0, np.uint8)
    top = float(np.quantile(np.repeat(scores, selection.gains), _TOP_QUANTILE))
    span = max(top - selection.threshold, np.finfo(np.float64).tiny)
    share = np.clip((scores - selection.threshold) / span, 0, 1)
    return np.rint(1 + share * 254).astype(np.uint8)


def strengths_of(scores: NDArray[np.float64], sizes: NDArray[np.int64] | None) -> NDArray[np.uint8]:
    """Codes 1..255 of what (M3b) and (M3c) select, uint8[A].

    The lowest score maps to 1, the 0.999 quantile of the selected tokens' scores to 255, clipped; where all are equal,
    each has 255.

    Args:
        sizes: int64[A], tokens that each stands for; None for one.
    """
    if not len(scores):
        return np.zeros(0, np.uint8)
    low = scores.min()
    if low == scores.max():
        return np.full(len(scores), 255, np.uint8)
    order = np.argsort(scores)
    until = np.arange(1, len(scores) + 1) if sizes is None else np.cumsum(sizes[order])
    at = _TOP_QUANTILE * float(until[-1] - 1)
    below = math.floor(at)
    ranks = np.minimum([below, below + 1], until[-1] - 1)
    lower, upper = scores[order[np.searchsorted(until, ranks, side="right")]]
    width = max(interpolate(float(lower), float(upper), at - below) - low, np.finfo(np.float64).tiny)
    return np.rint(1 + np.clip((scores - low) / width, 0, 1) * 254).astype(np.uint8)


def paint_windows(
    source: Source, span: Span, selection: Selection, strengths: NDArray[np.uint8]
) -> NDArray[np.uint8]:  # fmt: skip
    """Mask codes of ``span``: each selected token has the strength of the centre that claimed it."""
    at, claims = first_claims(source, span, selection.centres, selection.places, selection.window)
    codes = np.zeros(len(span), np.uint8)
    codes[at] = strengths[claims]
    return codes


def paint_positions(span: Span, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Mask codes of ``span``: 1 at these ascending global ``positions``."""
    codes = np.zeros(len(span), np.uint8)
    first, last = np.searchsorted(positions, [span.offset, span.offset + len(span)])
    codes[positions[first:last] - span.offset] = 1
    return codes


def paint_documents(source: Source, span: Span, documents: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Mask codes of ``span``: 1 at every eligible token of these ``documents``: ascending numbers, none of an empty
    document."""
    begins, ends = source.starts[documents] - span.offset, source.starts[documents + 1] - span.offset
    near = slice(int(np.searchsorted(ends, 0, side="right")), int(np.searchsorted(begins, len(span))))
    steps = np.zeros(len(span) + 1, np.int8)
    steps[np.maximum(begins[near], 0)] += 1
    steps[np.minimum(ends[near], len(span))] -= 1
    codes = np.cumsum(steps[:-1], dtype=np.int8).view(np.uint8)
    at = np.flatnonzero(codes)
    codes[at] = source.eligible(span, at)
    return codes
