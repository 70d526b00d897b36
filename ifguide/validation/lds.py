"""The linear datamodelling score: do sums of scores order what leaving tokens out really does?

For subsets D_1 .. D_K of loss terms, the run is trained again with the terms of D_k left out (λ = 0 in (M4)), same
initialisation and order; M_0 is the margin of the run with nothing left out.

    LDS = Spearman over k of  -Σ_{j in D_k} s_j  and  M_k - M_0

Learning a token with s > 0 raises the margin (M2), so leaving it out should lower it.

Shapes: K subsets, S seeds of training, n tokens of a subset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifguide.statistics.correlation import rank_correlation, rank_correlation_draws
from ifguide.statistics.resampling import RESAMPLES, interval
from ifguide.validation.margin import QuerySets
from ifguide.validation.rankings import Ranking
from ifguide.validation.retraining import Retrain, Training, base_of


def trainings_of(subsets: Sequence[NDArray[np.int64]], seeds: Sequence[int]) -> list[Training]:
    """The base run and one retraining a subset, for each seed."""
    return [
        one
        for seed in seeds
        for one in (base_of(seed), *(_of_subset(seed, k, places) for k, places in enumerate(subsets)))
    ]


def run_lds(
    rankings: Sequence[Ranking],
    subsets: Sequence[NDArray[np.int64]],
    seeds: Sequence[int],
    queries: QuerySets,
    retrain: Retrain,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Retrain without each of ``subsets``, and judge every one of ``rankings`` on the same models.

    Args:
        rankings: the first is the one that the others are compared with.
        seeds: of training.
        resamples, seed: of the bootstrap over subsets.

    Returns:
        What `judge` gives, the margins ``base``[S] and ``margins``[S][K], and ``seconds`` of all trainings.
    """
    trained = retrain(trainings_of(subsets, seeds))
    base = [trained[base_of(one).name].likelihoods.margin(queries) for one in seeds]
    margins = [
        [trained[_of_subset(one, k, places).name].likelihoods.margin(queries) for k, places in enumerate(subsets)]
        for one in seeds
    ]
    changes = np.array(margins) - np.array(base)[:, None]
    predictions = {ranking.name: -ranking.sums(subsets) for ranking in rankings}
    return {
        **judge(predictions, changes, resamples, seed),
        "base": base,
        "margins": margins,
        "seconds": round(sum(one.seconds for one in trained.values()), 2),
    }


def judge(
    predictions: Mapping[str, ArrayLike], changes: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """How well each prediction orders what happened.

    Args:
        predictions: name -> [K], the first is compared with each of the others.
        changes: [S, K], what happened, once for each seed of training.

    Returns:
        ``rankings``: name -> ``rho`` with the mean of the changes over seeds, its ``interval`` (95 %, bootstrap over
        subsets), ``rho_by_seed``, the ``prediction``[K], and for all but the first ``first_minus_this`` with
        ``interval`` and ``share_first_better``. ``changes``[S][K]. ``ceiling``: see `ceiling`. ``chance``: 95 %
        interval of ρ of a prediction that knows nothing.
    """
    happened = np.atleast_2d(np.asarray(changes, np.float64))
    mean = happened.mean(axis=0)
    names = list(predictions)
    predicted = np.array([np.asarray(predictions[name], np.float64) for name in names])
    draws = rank_correlation_draws(mean, predicted, resamples, seed)
    judged: dict[str, Any] = {}
    for name, row, drawn in zip(names, predicted, draws):
        judged[name] = {
            "rho": rank_correlation(row, mean),
            "interval": list(interval(drawn)),
            "rho_by_seed": [rank_correlation(row, one) for one in happened],
            "prediction": row.tolist(),
        }
        if name != names[0]:
            lead = draws[0] - drawn
            judged[name]["first_minus_this"] = {
                "rho": judged[names[0]]["rho"] - judged[name]["rho"],
                "interval": list(interval(lead)),
                "share_first_better": float((lead > 0).mean() + 0.5 * (lead == 0).mean()),
            }
    return {
        "rankings": judged,
        "changes": happened.tolist(),
        "ceiling": ceiling(happened),
        "chance": chance(happened.shape[1], resamples, seed),
    }


def ceiling(changes: NDArray[np.float64]) -> dict[str, float] | None:
    """What a prediction can reach at most where training itself is noisy, from halves of ``changes``[S, K].

    ``reliability`` r is the mean Spearman of two seeds' changes: how far one half of the runs knows the other. A
    prediction that knew the expectation over seeds would reach sqrt(r) against one seed and sqrt(S r / (1 + (S - 1) r))
    against the mean of S (Spearman and Brown; exact for Pearson's). None with one seed.
    """
    count = len(changes)
    if count < 2:
        return None
    pairs = [rank_correlation(changes[i], changes[j]) for i in range(count) for j in range(i)]
    reliability = max(0.0, float(np.mean(pairs)))
    return {
        "reliability": reliability,
        "one_seed": math.sqrt(reliability),
        "mean_of_seeds": math.sqrt(count * reliability / (1 + (count - 1) * reliability)),
    }


def chance(count: int, resamples: int = RESAMPLES, seed: int = 0) -> list[float]:
    """95 % interval of Spearman's ρ of ``count`` pairs that have nothing to do with each other."""
    random = np.random.default_rng([seed, 1])
    order = np.arange(count) - (count - 1) / 2
    shuffled = random.permuted(np.tile(order, (resamples, 1)), axis=1)
    scale = float((order**2).sum())
    return list(interval(shuffled @ order / scale)) if scale else [0.0, 0.0]


def _of_subset(seed: int, k: int, places: NDArray[np.int64]) -> Training:
    return Training(f"s{seed}-k{k:04d}", seed, places)
