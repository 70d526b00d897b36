"""From selected tokens to mask codes, one chunk at a time.

Shapes: A admitted centres, by place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.algorithm import Selection, first_claims
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
