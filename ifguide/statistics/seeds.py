"""How sure a mean over training seeds is, where every seed was judged on the same prompts.

Shapes: S seeds, P prompts.

Two things vary: the seed of the training and the prompts that were drawn. With m_s the metric of seed s, m their mean,
and v the variance that drawing the prompts anew gives m (of the mean over prompts of the seeds' mean values):

    se² = Σ_s (m_s - m)² / (S (S - 1)) + v,   v = Σ_p (x_p - m)² / P²,   x_p = mean_s x_sp

and the interval is m ± t se, with the degrees of freedom of Welch and Satterthwaite: se⁴ over the sum of each part's
square over its own, S - 1 and P - 1. A metric without prompts, such as a perplexity, has the first part alone; a single
seed has the second alone, and says nothing about other seeds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ifguide.statistics.proportions import CONFIDENCE


def seed_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Of the mean of ``values[S]`` (one number a seed) or ``values[S, P]`` (one a seed and prompt); None where nothing
    varies that could be told from: one seed without prompts, or with one."""
    values = np.asarray(values, dtype=np.float64)
    by_seed = values if values.ndim == 1 else values.mean(axis=1)
    mean = float(by_seed.mean())
    parts = []  # (variance, degrees of freedom)
    if len(by_seed) > 1:
        parts.append((float(by_seed.var(ddof=1)) / len(by_seed), len(by_seed) - 1))
    if values.ndim == 2 and values.shape[1] > 1:
        by_prompt = values.mean(axis=0)
        parts.append((float(by_prompt.var()) / len(by_prompt), len(by_prompt) - 1))
    if not parts:
        return None
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return mean, mean
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    from scipy.stats import t  # not needed by the base install

    half = float(t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return mean - half, mean + half
