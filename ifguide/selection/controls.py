"""What Algorithm 1 is compared with: tokens drawn at random, and whole documents by descending R."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import InputError
from ifguide.selection.algorithm import unit_r
from ifguide.selection.settings import SelectionSettings
from ifguide.selection.source import Source, Span
from ifguide.selection.tail import toxic_tail

DOCUMENT_PASSES = 1  # over the corpora, made by `ranked_documents`


def random_positions(source: Source, count: int, seed: int) -> NDArray[np.int64]:
    """``count`` of the eligible tokens drawn without replacement: ascending int64[count].

    Raises:
        InputError: more tokens asked for than there are.
    """
    num_eligible = sum(map(source.count_eligible, source.spans()))
    if count > num_eligible:
        raise InputError(f"a random mask of {count} tokens does not fit into {num_eligible} eligible tokens")
    ordinals = _distinct(np.random.default_rng(seed), num_eligible, count)
    positions, before = [], 0
    for span in source.spans():
        eligible = np.flatnonzero(source.eligible(span, np.arange(len(span))))
        first, last = np.searchsorted(ordinals, [before, before + len(eligible)])
        positions.append(eligible[ordinals[first:last] - before] + span.offset)
        before += len(eligible)
    return np.concatenate(positions)


def ranked_documents(
    source: Source, settings: SelectionSettings, on_span: Callable[[Span], object] = lambda span: None
) -> tuple[NDArray[np.int64], dict[str, int], float]:
    """The documents that document-level removal drops: by descending R of the whole document, until the first
    that does not fit the budget whole. Documents without a toxic token stay.

    Returns:
        (ascending document numbers, counts, τ).

    Raises:
        NumericsError: a score is NaN or infinite.
    """
    threshold, centres, scores = toxic_tail(source, settings.threshold_quantile, on_span)
    lengths = np.diff(source.starts)
    document_of_centre = np.searchsorted(source.starts, centres, side="right") - 1
    # an empty document is no unit, as in Algorithm 1: it must not move the minima
    filled = np.flatnonzero(lengths)
    unit_of_document = np.cumsum(lengths > 0) - 1
    r = unit_r(scores, unit_of_document[document_of_centre], len(filled))
    order = filled[np.argsort(-r, kind="stable")]
    order = order[np.isin(order, document_of_centre)]
    running = np.cumsum(lengths[order])
    budget = settings.budget(source.num_tokens)
    dropped = np.sort(order[: int(np.searchsorted(running, budget, side="right"))])
    counts = {
        "tokens": source.num_tokens,
        "toxic": len(centres),
        "budget": budget,
        "documents": len(lengths),
        "documents_toxic": len(order),
        "documents_removed": len(dropped),
        "tokens_removed": int(lengths[dropped].sum()),
    }
    return dropped, counts, threshold


def _distinct(generator: np.random.Generator, population: int, count: int) -> NDArray[np.int64]:
    """``count`` distinct numbers below ``population``, every set as likely: ascending int64[count].

    Draws, drops repetitions and draws again, so the memory is that of the result whatever the population.
    """
    if 2 * count > population:
        left_out = _distinct(generator, population, population - count)
        return np.delete(np.arange(population), left_out)
    drawn = np.zeros(0, np.int64)
    while len(drawn) < count:
        drawn = np.union1d(drawn, generator.integers(0, population, count - len(drawn)))
    return drawn
