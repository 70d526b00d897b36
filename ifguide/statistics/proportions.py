"""How sure a share is that was counted in a sample."""

from __future__ import annotations

CONFIDENCE = 0.95


def proportion_interval(share: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share of ``count`` independent trials.

    With p the share, n the count, z the normal quantile (1.96 at 95 %):
      (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    The bootstrap gives [0, 0] for 0 of 3, as if three trials could tell.
    """
    from scipy.stats import binomtest  # not needed by the base install

    found = binomtest(round(share * count), count).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)
