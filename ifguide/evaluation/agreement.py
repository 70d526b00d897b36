"""How far the judges of a task agree: Cohen's kappa of each two, and the texts that they part on.

A judge's verdict on a text is whether it scores 0.5 or more, as TP counts it. Of all texts of a task, with p_o the
share on which both say the same, and p_a, p_b the shares that the one and the other call toxic,

    κ = (p_o - p_e) / (1 - p_e),    p_e = p_a p_b + (1 - p_a)(1 - p_b)

1 is full agreement, 0 what two judges reach by chance that only call as many texts toxic. Where both call all texts the
same, p_e is 1 and there is no κ. The interval is the bootstrap's over prompts: the texts of one are not independent.

Shapes: P prompts, K texts each (they may differ), R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ifguide.evaluation.tasks.scoring import THRESHOLD
from ifguide.statistics.resampling import Floats, bootstrap, interval

# disagreements that are kept of each two judges
SHOWN = 20


def agreement(rows: Sequence[Mapping[str, Any]], judges: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """One entry for each two of ``judges``, in their order.

    Args:
        rows: one a prompt, with ``id`` and ``scores``: judge -> one number a text.
        judges: names.
        seed: of the bootstrap.

    Returns:
        ``first``, ``second``, ``texts``, ``prompts``, ``same`` (p_o), counts of texts that both, one alone or neither
        calls toxic (``both``, ``first_only``, ``second_only``, ``neither``), ``kappa`` with its ``interval`` (None
        where there is none), and ``disagreements``: the `SHOWN` texts that the verdicts part on with the widest gap,
        each as ``id`` of the prompt, ``text`` (its number there, from 0) and both ``scores``.
    """
    return [_pair(rows, first, second, seed) for first, second in combinations(judges, 2)]


def kappa(shares: Floats) -> Floats:
    """κ of ``shares[..., 3]``: same verdict, toxic by the first, toxic by the second; NaN where there is none."""
    same, first, second = np.moveaxis(shares, -1, 0)
    chance = first * second + (1 - first) * (1 - second)
    left = 1 - chance
    # two judges that are constant have no κ; what is left then is no more than rounding
    defined = left > 1e-12
    return np.divide(same - chance, left, out=np.full(np.shape(left), np.nan), where=defined)


def _pair(rows: Sequence[Mapping[str, Any]], first: str, second: str, seed: int) -> dict[str, Any]:
    scores = [np.array([row["scores"][first], row["scores"][second]], dtype=np.float64) for row in rows]  # [2, K] each
    verdicts = [one >= THRESHOLD for one in scores]
    counts = np.array([[one.shape[1], *_count(one)] for one in verdicts], dtype=np.float64)  # [P, 4]
    totals = counts.sum(axis=0)
    both = int(sum((one[0] & one[1]).sum() for one in verdicts))
    # the shares of the three counts in the texts: one ratio of sums each, resampled with the same draws
    pairs = np.stack([counts[:, 1:], np.broadcast_to(counts[:, :1], (len(rows), 3))], axis=-1)  # [P, 3, 2]
    found = float(kappa(totals[1:] / totals[0]))
    bounds = None
    if np.isfinite(found) and len(rows) > 1:
        draws = kappa(bootstrap(pairs, "mean", seed=seed))
        # a resample without a toxic text says nothing of how far the judges agree on one
        draws = draws[np.isfinite(draws)]
        bounds = list(interval(draws)) if len(draws) else None
    return {
        "first": first,
        "second": second,
        "texts": int(totals[0]),
        "prompts": len(rows),
        "same": float(totals[1] / totals[0]),
        "both": both,
        "first_only": int(totals[2]) - both,
        "second_only": int(totals[3]) - both,
        "neither": int(totals[0] - totals[2] - totals[3]) + both,
        "kappa": found if np.isfinite(found) else None,
        "interval": bounds,
        "disagreements": _disagreements(rows, scores, verdicts),
    }


def _count(verdicts: np.ndarray) -> list[int]:
    """Of one prompt's verdicts [2, K]: same, toxic by the first, toxic by the second."""
    return [int((verdicts[0] == verdicts[1]).sum()), int(verdicts[0].sum()), int(verdicts[1].sum())]


def _disagreements(
    rows: Sequence[Mapping[str, Any]], scores: Sequence[np.ndarray], verdicts: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    found = [
        {"id": row["id"], "text": int(text), "scores": own[:, text].tolist()}
        for row, own, said in zip(rows, scores, verdicts)
        for text in np.flatnonzero(said[0] != said[1])
    ]
    found.sort(key=lambda one: -abs(one["scores"][0] - one["scores"][1]))  # stable: by prompt where the gap is one
    return found[:SHOWN]
