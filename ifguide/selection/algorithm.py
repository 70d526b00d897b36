"""Algorithm 1 (M3) without a loop over tokens.

Shapes: N tokens, D documents, U ranking units, C toxic tokens (*centres*), A centres that the budget admits.
A centre's *place* is its number in the order of selection; the admitted ones have the places 0 .. A - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.settings import SelectionSettings
from ifguide.selection.source import Source, Span
from ifguide.selection.tail import toxic_tail

PASSES = 2  # over the corpora, made by `select`


@dataclass(frozen=True, eq=False)
class Selection:
    """Result of `select`: the admitted centres. Their windows are painted chunk by chunk (`paint_windows`).

    Attributes:
        centres: int64[A], their global positions, ascending.
        places: int64[A], place of each.
        scores: float32[A], by place.
        gains: int64[A], tokens that each added, by place; they sum to the tokens selected.
        threshold: τ.
        window: w.
        counts: tokens, toxic, selected, budget, units, units_with_selection.
    """

    centres: NDArray[np.int64]
    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    gains: NDArray[np.int64]
    threshold: float
    window: int
    counts: dict[str, int]


def select(
    source: Source, settings: SelectionSettings, on_span: Callable[[Span], object] = lambda span: None
) -> Selection:
    """Algorithm 1 (M3) over all documents of ``source``.

    Args:
        on_span: told of every chunk that was read (`PASSES` times each).

    Raises:
        NumericsError: a score is NaN or infinite; names the document and the token.
    """
    threshold, centres, scores = toxic_tail(source, settings.threshold_quantile, on_span)
    units = unit_starts(source.starts, settings.unit_tokens)
    unit_of_centre = np.searchsorted(units, centres, side="right") - 1
    ranks = ranks_by_r(unit_r(scores, unit_of_centre, len(units)))
    order = np.argsort(ranks[unit_of_centre], kind="stable")  # stable: keeps token order inside a unit
    places = np.empty_like(order)
    places[order] = np.arange(len(order))

    gains = np.zeros(len(centres), np.int64)
    for span in source.spans():
        _, claims = first_claims(source, span, centres, places, settings.window)
        np.add.at(gains, claims, 1)
        on_span(span)
    running = np.cumsum(gains)
    budget = settings.budget(source.num_tokens)
    admitted = int(np.searchsorted(running, budget, side="right"))

    kept = places < admitted
    counts = {
        "tokens": source.num_tokens,
        "toxic": len(centres),
        "selected": int(running[admitted - 1]) if admitted else 0,
        "budget": budget,
        "units": len(units),
        "units_with_selection": len(np.unique(unit_of_centre[kept])),
    }
    return Selection(
        centres[kept], places[kept], scores[order[:admitted]], gains[:admitted], threshold, settings.window, counts
    )


def unit_starts(starts: NDArray[np.int64], unit_tokens: int) -> NDArray[np.int64]:
    """Positions where ranking units begin, int64[U]: documents cut into pieces of ``unit_tokens``."""
    pieces = -(-np.diff(starts) // unit_tokens)
    first = np.repeat(starts[:-1], pieces)
    piece = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return first + piece * unit_tokens


def unit_r(
    scores: NDArray[np.float32], unit_of_centre: NDArray[np.int64], num_units: int
) -> NDArray[np.float64]:  # fmt: skip
    """R = 2 c f / (c + f) of each unit, c and f min-max normalised over the units, float64[U]."""
    count = np.bincount(unit_of_centre, minlength=num_units).astype(np.float64)
    total = np.bincount(unit_of_centre, weights=scores.astype(np.float64), minlength=num_units)
    c, f = _min_max(count), _min_max(total)
    both = c + f
    return np.divide(2 * c * f, both, out=np.zeros(num_units), where=both > 0)


def ranks_by_r(r: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place of each unit in the order of descending R, ties by position, int64[U]."""
    ranks = np.empty(len(r), np.int64)
    ranks[np.argsort(-r, kind="stable")] = np.arange(len(r))
    return ranks


def first_claims(
    source: Source, span: Span, centres: NDArray[np.int64], places: NDArray[np.int64], window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(tokens of ``span`` that some window reaches and that may be selected, place of the first centre whose window
    holds each), int64[S] both, by position.

    Counting the claims of a centre gives the number of NEW tokens that it adds, which is all the greedy loop needs
    to know.

    Args:
        centres: int64[C], ascending global positions.
        places: int64[C], of each.
    """
    begin, end = span.offset, span.offset + len(span)
    near = slice(*np.searchsorted(centres, [begin - window, end + window]))
    centres, places = centres[near], places[near]
    if not len(centres):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first, last = np.searchsorted(source.starts, [centres[0], centres[-1]], side="right")
    starts = source.starts[first - 1 : last + 1]
    document = np.searchsorted(starts, centres, side="right") - 1
    low, high = np.maximum(starts[document], begin), np.minimum(starts[document + 1], end)
    reached, claimants = [], []
    for shift in range(-window, window + 1):
        at = centres + shift
        inside = (at >= low) & (at < high)
        reached.append(at[inside] - begin)
        claimants.append(places[inside])
    at, claims = np.concatenate(reached), np.concatenate(claimants)
    order = np.argsort(at, kind="stable")
    at, claims = at[order], claims[order]
    distinct = np.flatnonzero(np.diff(at, prepend=-1))
    at, claims = at[distinct], np.minimum.reduceat(claims, distinct)
    allowed = source.eligible(span, at)
    return at[allowed], claims[allowed]


def _min_max(values: NDArray) -> NDArray[np.float64]:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)
