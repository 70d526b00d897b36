"""How sure a share is that was counted in a sample."""

from __future__ import annotations

import math
from statistics import NormalDist

CONFIDENCE = 0.95


def proportion_interval(share: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share of ``count`` independent trials.

    With p the share, n the count, z the normal quantile (1.96 at 95 %):
      (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    The bootstrap gives [0, 0] for 0 of 3, as if three trials could tell.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # at both ends the formula gives 0 and 1 but for rounding
    low = (centre - half) / scale if share > 0 else 0.0
    high = (centre + half) / scale if share < 1 else 1.0
    return low, high
