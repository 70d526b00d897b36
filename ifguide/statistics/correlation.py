"""How alike two rows of numbers are ordered."""

from __future__ import annotations

import math
import warnings

from numpy.typing import ArrayLike


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's, of ``a``[N] and ``b``[N]; equal values share the mean of their ranks.

    0 where it is not defined (a constant, or a number that is not one).
    """
    from scipy.stats import spearmanr  # not needed by the base install

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a constant: the 0 says it
        value = float(spearmanr(a, b).statistic)
    return value if math.isfinite(value) else 0.0
