"""Shares counted in texts, where what stands in one document is not independent.

Shapes: D documents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ifguide.statistics.proportions import CONFIDENCE


def wilson(share: float, count: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval, as `ifguide.statistics.proportions.proportion_interval`, of a number of trials that
    need not be whole."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * reach) / (1 + z * z / count) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))


@dataclass
class ClusteredShare:
    """A share of units (spans, tokens) that come in documents, counted piece by piece.

    With n_d units in document d, m_d of them hit, p = Σm / Σn, the variance of p is that of a ratio over documents,

        D / (D - 1) · Σ (m_d - p n_d)² / (Σn)²,

    and the interval is Wilson's for the number of independent units that would vary as much, p (1 - p) / variance, at
    most Σn (the effective sample size, as Korn and Graubard 1998 use it). Where nothing varies it is D.

    Attributes:
        documents: D, those with a unit.
        units, hits: Σn, Σm.
    """

    documents: int = 0
    units: int = 0
    hits: int = 0
    _hits_squared: float = 0.0
    _products: float = 0.0
    _units_squared: float = 0.0

    def add(self, units: NDArray[np.int64], hits: NDArray[np.int64]) -> None:
        """Some more documents: units and hits of each."""
        self.documents += int(np.count_nonzero(units))
        self.units += int(units.sum())
        self.hits += int(hits.sum())
        n, m = units.astype(np.float64), hits.astype(np.float64)
        self._hits_squared += float(m @ m)
        self._products += float(m @ n)
        self._units_squared += float(n @ n)

    @property
    def share(self) -> float | None:
        """None where there is no unit."""
        return self.hits / self.units if self.units else None

    def interval(self) -> tuple[float, float] | None:
        """Of 95 %; None where there is no unit."""
        p = self.share
        if p is None:
            return None
        spread = self._hits_squared - 2 * p * self._products + p * p * self._units_squared
        count = float(self.documents)
        if self.documents > 1 and spread > 1e-9 * self._units_squared and 0 < p < 1:
            variance = self.documents / (self.documents - 1) * spread / self.units**2
            count = min(p * (1 - p) / variance, float(self.units))
        return wilson(p, count)


def difference(first: ClusteredShare, second: ClusteredShare) -> tuple[float, float, float] | None:
    """(first - second, low, high), the interval from those of both (Newcombe 1998, method 10), as if they were
    independent; None where one has no unit."""
    p, q, own, other = first.share, second.share, first.interval(), second.interval()
    if p is None or q is None or own is None or other is None:
        return None
    low = math.hypot(p - own[0], other[1] - q)
    high = math.hypot(own[1] - p, q - other[0])
    return p - q, p - q - low, p - q + high
