"""Bootstrap over prompts of any metric that is a function of one ratio of sums, for one run or for several at once.

Shapes: P prompts, R resamples, C columns.

A prompt contributes a pair (a, b) to a metric:
  mean        sum a / sum b              b = 1
  perplexity  exp(-sum a / sum b)        a: log-likelihood in nats, b: what it is spread over (1, tokens, words, bytes)
  bits        -sum a / sum b / ln 2
Prompts are drawn, not continuations: those of one prompt are not independent. Runs on the same prompts are resampled
with the same draws, so that what makes a prompt hard for both of them cancels in the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifguide.errors import InputError, NumericsError
from ifguide.statistics.proportions import CONFIDENCE

# resample counts held at once: bounds memory, changes no draw
_BLOCK_ELEMENTS = 1 << 22
RESAMPLES = 10_000

Floats = NDArray[np.float64]
TRANSFORMS: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda ratio: ratio,
    "perplexity": lambda ratio: np.exp(-ratio),
    "bits": lambda ratio: -ratio / math.log(2),
}


def as_pairs(values: ArrayLike) -> Floats:
    """``values[P]`` or ``values[P, 2]`` -> pairs ``[P, 2]``; a single value counts once."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        return np.stack([values, np.ones_like(values)], axis=1)
    if values.ndim != 2 or values.shape[1] != 2:
        raise InputError(f"values of shape {values.shape}: expected one number or one pair a prompt")
    return values


def statistic(pairs: Floats, transform: str) -> float:
    """The metric of ``pairs[P, 2]``."""
    a, b = pairs.sum(axis=0)
    return float(TRANSFORMS[transform](np.array(a / b)))


def recognise(pairs: Floats, reported: float) -> str | None:
    """The transform under which ``pairs`` give the number that lm-eval reported; None if there is none."""
    for name in TRANSFORMS:
        with np.errstate(over="ignore"):
            if math.isclose(statistic(pairs, name), reported, rel_tol=1e-9, abs_tol=1e-12):
                return name
    return None


def bootstrap(pairs: Floats, transform: str, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """``pairs[P, ..., 2]`` -> the metric of each resample of the prompts, ``[R, ...]``.

    Raises:
        InputError: no prompts, or no resamples.
        NumericsError: a value that is not finite; names its prompt.
    """
    prompts = pairs.shape[0]
    if not prompts or resamples < 1:
        raise InputError(f"{prompts} prompts and {resamples} resamples: at least one of each is needed")
    flat = pairs.reshape(prompts, -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if bad.size:
        raise NumericsError(f"the value of prompt {int(bad[0])} is not finite")
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK_ELEMENTS // prompts)
    sums = np.concatenate(
        [_counts(random, min(rows, resamples - start), prompts) @ flat for start in range(0, resamples, rows)]
    ).reshape(resamples, *pairs.shape[1:])
    with np.errstate(over="ignore"):
        return TRANSFORMS[transform](sums[..., 0] / sums[..., 1])


def interval(draws: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile interval of ``draws[R]``."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _counts(random: np.random.Generator, rows: int, prompts: int) -> Floats:
    """``[rows, P]``: how often each prompt is in each resample of P prompts."""
    drawn = random.integers(0, prompts, size=(rows, prompts))
    drawn += prompts * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * prompts).reshape(rows, prompts).astype(np.float64)
