"""Strata of spans by the masks that touch them, and spans drawn from each.

A stratum holds the spans of which the same masks select a token: those of each mask alone, of both, of neither, and
with more masks every combination that occurs. Of a stratum with N tokens n tokens are drawn uniformly, with
replacement; a token that is drawn brings its whole span. So a span of k tokens is drawn k n / N times on average
(sampling proportional to size). A stratum with no more spans than its share of the draws is taken whole.

Shapes: H strata, M masks, P spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import InputError
from ifguide.inspection.spans import Spans, SpanWalk

FEWEST = 2  # draws for each stratum


@dataclass(frozen=True, eq=False)
class Strata:
    """What there is to draw from.

    Attributes:
        patterns: int64[H], bit m is set where mask m selects a token; ascending.
        spans: int64[H].
        tokens: int64[H], without EOD.
        selected: int64[H, M], tokens that each mask selects.
    """

    patterns: NDArray[np.int64]
    spans: NDArray[np.int64]
    tokens: NDArray[np.int64]
    selected: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draws:
    """Spans that were drawn, in random order.

    Attributes:
        allotted: int64[H], draws of each stratum; all its spans where it is complete.
        complete: bool[H].
        strata: int64[P], the stratum of each span.
        times: int64[P], how often it was drawn.
        spans: the spans.
    """

    allotted: NDArray[np.int64]
    complete: NDArray[np.bool_]
    strata: NDArray[np.int64]
    times: NDArray[np.int64]
    spans: Spans


def count_strata(walk: SpanWalk) -> Strata:
    """One pass over the data."""
    count = len(walk.masks)
    spans, tokens = np.zeros(1 << count, np.int64), np.zeros(1 << count, np.int64)
    selected = np.zeros((1 << count, count), np.int64)
    for found, _, _ in walk("count"):
        pattern = patterns_of(found)
        spans += np.bincount(pattern, minlength=1 << count)
        np.add.at(tokens, pattern, found.sizes)
        np.add.at(selected, pattern, found.selected.T)
    present = np.flatnonzero(spans)
    return Strata(present, spans[present], tokens[present], selected[present])


def patterns_of(spans: Spans) -> NDArray[np.int64]:
    """int64[P]: bit m is set where mask m selects a token of the span."""
    bits = 1 << np.arange(len(spans.selected), dtype=np.int64)
    return ((spans.selected > 0) * bits[:, None]).sum(axis=0)


def allot(sample: int, strata: Strata) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(draws of each stratum, whether all its spans are taken).

    Half of the draws go to the strata equally, half by their tokens: the small strata tell masks apart, the large one
    that no mask touches decides what was missed. What a stratum that is taken whole does not need goes to the others,
    by their tokens.

    Raises:
        InputError: fewer than two draws for each stratum.
    """
    count = len(strata.patterns)
    if sample < FEWEST * count:
        raise InputError(f"--sample {sample}: {count} strata of spans need at least {FEWEST * count}")
    equal = np.full(count, max(FEWEST, sample // 2 // count))
    draws = equal + _by_size(sample - int(equal.sum()), strata.tokens)
    complete = np.zeros(count, bool)
    while True:
        whole = ~complete & (strata.spans <= draws)
        if not whole.any():
            return draws, complete
        complete |= whole
        spare = int((draws - strata.spans)[whole].sum())
        draws[whole] = strata.spans[whole]
        if not complete.all():
            draws += _by_size(spare, np.where(complete, 0, strata.tokens))


def draw(walk: SpanWalk, strata: Strata, sample: int, seed: int) -> Draws:
    """``sample`` draws; one more pass over the data.

    Raises:
        InputError: as `allot`.
    """
    generator = np.random.default_rng(seed)
    allotted, complete = allot(sample, strata)
    ranks = [
        np.zeros(0, np.int64) if whole else np.sort(generator.integers(0, size, count))
        for whole, size, count in zip(complete, strata.tokens, allotted)
    ]
    passed = np.zeros(len(strata.patterns), np.int64)  # tokens of each stratum so far
    kept: list[Spans] = []
    times_of: list[NDArray[np.int64]] = []
    stratum_of: list[NDArray[np.int64]] = []
    for found, _, _ in walk("draw"):
        pattern = patterns_of(found)
        for h, wanted in enumerate(strata.patterns.tolist()):
            members = np.flatnonzero(pattern == wanted)
            if not len(members):
                continue
            times = np.ones(len(members), np.int64)
            if not complete[h]:
                ends = passed[h] + np.cumsum(found.sizes[members])
                first, last = np.searchsorted(ranks[h], [passed[h], ends[-1]])
                hits = np.searchsorted(ends, ranks[h][first:last], side="right")
                times = np.bincount(hits, minlength=len(members))
                passed[h] = ends[-1]
            hit = times > 0
            kept.append(found.take(members[hit]))
            times_of.append(times[hit])
            stratum_of.append(np.full(int(hit.sum()), h))
    spans = Spans.join(kept)
    # first as they lie in the data, whatever pieces they came in
    order = np.argsort(spans.begins, kind="stable")[generator.permutation(len(spans))]
    times, number = np.concatenate(times_of)[order], np.concatenate(stratum_of)[order]
    return Draws(allotted, complete, number, times, spans.take(order))


def _by_size(count: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """``count`` shared out in proportion to ``sizes``; what rounding leaves goes to the largest remainders."""
    exact = count * sizes / sizes.sum()
    found = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - found), kind="stable")[: count - int(found.sum())]
    found[rest] += 1
    return found
