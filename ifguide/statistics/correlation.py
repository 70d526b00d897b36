"""How alike two rows of numbers are ordered."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifguide.statistics.resampling import RESAMPLES

# ranks held at once: bounds memory, changes no draw
_BLOCK_ELEMENTS = 1 << 22


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's, of ``a``[N] and ``b``[N]; equal values share the mean of their ranks.

    0 where it is not defined (a constant, or a number that is not one).
    """
    from scipy.stats import spearmanr  # not needed by the base install

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a constant: the 0 says it
        value = float(spearmanr(a, b).statistic)
    return value if math.isfinite(value) else 0.0


def rank_correlation_draws(
    actual: ArrayLike, predictions: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Spearman's of ``actual``[K] and each of ``predictions``[S, K], in resamples of the K pairs: [S, resamples].

    All S are resampled with the same draws, so that what one draw does to all of them cancels in a difference. A pair
    that is drawn twice counts twice; its ranks are shared, as those of equal values are. 0 where it is not defined.
    """
    from scipy.stats import rankdata  # not needed by the base install

    values = np.vstack([np.asarray(actual, np.float64), np.atleast_2d(np.asarray(predictions, np.float64))])
    count = values.shape[1]
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK_ELEMENTS // (count * len(values)))
    pieces = []
    for start in range(0, resamples, rows):
        drawn = random.integers(0, count, size=(min(rows, resamples - start), count))
        ranks = rankdata(values[:, drawn], axis=-1)  # [1 + S, rows, K]
        ranks -= ranks.mean(axis=-1, keepdims=True)
        norms = np.sqrt((ranks**2).sum(axis=-1))
        products = (ranks[:1] * ranks[1:]).sum(axis=-1)
        scale = norms[:1] * norms[1:]
        pieces.append(np.divide(products, scale, out=np.zeros_like(products), where=scale > 0))
    return np.concatenate(pieces, axis=1)
