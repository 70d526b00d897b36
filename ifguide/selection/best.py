"""The best of a stream that a budget can hold, in memory that grows with the budget alone.

Passages come ascending by position. By descending score, ties by position, they are taken until the first that does
not fit. A passage behind that first one can never be taken, whatever comes later; so from time to time everything
behind it is forgotten.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.passages import Passages

_FEWEST_BEFORE_PRUNING = 1 << 20
_GROWTH = 1.5


class Best:
    """The passages taken so far.

    Args:
        budget: in eligible tokens.
        fewest: candidates that are kept before the first pruning.
    """

    def __init__(self, budget: int, fewest: int = _FEWEST_BEFORE_PRUNING):
        self._budget, self._fewest = budget, fewest
        self._prune_at = fewest
        self._parts: list[Passages] = []
        self._count = 0
        self._limit = -np.inf

    def add(self, found: Passages) -> None:
        """Passages behind all that were added before."""
        # an equal score comes later in the order
        better = found.scores > self._limit
        found = found if better.all() else found.take(better)
        if not len(found):
            return
        self._parts.append(found)
        self._count += len(found)
        if self._count > self._prune_at:
            every, order, admitted = self._ordered()
            if admitted < len(order):
                self._limit = float(every.scores[order[admitted]])
                every = every.take(np.sort(order[: admitted + 1]))
            self._parts, self._count = [every], len(every)
            self._prune_at = max(self._fewest, int(_GROWTH * self._count))

    def result(self) -> tuple[Passages, int | None]:
        """(what is taken, ascending by position; tokens of the first passage that did not fit, or None)."""
        every, order, admitted = self._ordered()
        first = None if admitted == len(order) else 1 if every.sizes is None else int(every.sizes[order[admitted]])
        return every.take(np.sort(order[:admitted])), first

    def _ordered(self) -> tuple[Passages, NDArray[np.int64], int]:
        """All candidates, their order of selection, and how many of them fit."""
        every = Passages.join(self._parts)
        order = np.argsort(-every.scores, kind="stable")
        if every.sizes is None:
            return every, order, min(len(every), self._budget)
        return every, order, int(np.searchsorted(np.cumsum(every.sizes[order]), self._budget, side="right"))
