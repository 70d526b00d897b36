"""The linear datamodelling score, on losses whose retraining is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from ifguide.influence.queries import make_query
from ifguide.statistics.correlation import rank_correlation_draws
from ifguide.validation.lds import ceiling, chance, judge, run_lds
from ifguide.validation.margin import Likelihoods, QuerySets
from ifguide.validation.rankings import Ranking
from ifguide.validation.retraining import Retrained, Training
from ifguide.validation.subsets import Draw, subset

N, D = 400, 5
QUERIES = QuerySets([make_query([1], [2], 0)], [make_query([1], [3], 0)])


class Quadratic:
    """Loss terms ``l_j = (θ - a_j)ᵀ A (θ - a_j) / 2`` of one known Hessian A, and likelihoods that are linear in θ.

    Training ends at the minimum: the mean of the a_j that are kept, whatever A.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        root = random.standard_normal((D, D))
        self.hessian = root @ root.T + np.eye(D)
        self.targets = random.standard_normal((N, D))
        self.toxic, self.safe = random.standard_normal((2, D))

    def retrain(self, trainings: Sequence[Training]) -> Mapping[str, Retrained]:
        found = {}
        for one in trainings:
            kept = np.ones(N, bool)
            if one.dropped is not None:
                kept[one.dropped] = False
            theta = self.targets[kept].mean(axis=0)
            found[one.name] = Retrained(Likelihoods((float(self.toxic @ theta),), (float(self.safe @ theta),)), 1.0)
        return found

    @property
    def scores(self) -> np.ndarray:
        """(M2): s_j = v · ∇l_j, v = A^-1 (g_tox - g_safe), g the gradient of minus the likelihood; float64[N]."""
        direction = np.linalg.solve(self.hessian, -(self.toxic - self.safe))
        gradients = (self.targets.mean(axis=0) - self.targets) @ self.hessian
        return gradients @ direction


def ranking(name: str, values: np.ndarray) -> Ranking:
    return Ranking(name, lambda places: values[places])


def subsets(count: int = 12) -> list[np.ndarray]:
    starts = np.arange(0, N + 1, 20)
    return [subset(starts, (0, len(starts) - 1), Draw(fraction=0.05), k) for k in range(count)]


def validated(**more: Any) -> dict[str, Any]:
    problem = Quadratic()
    noise = np.random.default_rng(5).standard_normal(N)
    rankings = [ranking("scores", problem.scores), ranking("reversed", -problem.scores), ranking("noise", noise)]
    return run_lds(rankings, subsets(), [7], QUERIES, problem.retrain, resamples=500, **more)


def test_a_quadratic_loss_of_known_hessian_gives_one_and_its_opposite_minus_one() -> None:
    found = validated()
    own, opposite, noise = (found["rankings"][name] for name in ("scores", "reversed", "noise"))
    assert own["rho"] == pytest.approx(1.0, abs=1e-12) and opposite["rho"] == pytest.approx(-1.0, abs=1e-12)
    assert abs(noise["rho"]) < 0.8 and own["interval"] == pytest.approx([1.0, 1.0])
    # not only the order: the change is the sum over the number of terms that stay
    kept = N - len(subsets()[0])
    np.testing.assert_allclose(found["changes"][0], np.array(own["prediction"]) / kept, rtol=1e-9)
    assert found["seconds"] == 13.0 and len(found["base"]) == 1


def test_the_others_are_held_against_the_first_on_the_same_models() -> None:
    found = validated()["rankings"]
    assert "first_minus_this" not in found["scores"]
    lead = found["noise"]["first_minus_this"]
    assert lead["rho"] == pytest.approx(1.0 - found["noise"]["rho"]) and lead["share_first_better"] == 1.0
    assert lead["interval"][0] > 0
    assert found["reversed"]["first_minus_this"]["interval"] == pytest.approx([2.0, 2.0])


def test_resamples_are_spearman_of_drawn_pairs() -> None:
    random = np.random.default_rng(3)
    actual, predicted = random.standard_normal(9), random.standard_normal((2, 9))
    draws = rank_correlation_draws(actual, predicted, 50, seed=4)
    drawn = np.random.default_rng(4).integers(0, 9, size=(50, 9))
    expected = [[spearmanr(actual[row], one[row]).statistic for row in drawn] for one in predicted]
    np.testing.assert_allclose(draws, expected, atol=1e-12)
    assert (rank_correlation_draws(np.ones(9), predicted, 20) == 0).all()


def test_the_ceiling_is_that_of_two_halves() -> None:
    random = np.random.default_rng(0)
    truth = random.standard_normal(4000)
    seeds = np.stack([truth + random.standard_normal(4000) for _ in range(2)])
    found = ceiling(seeds)
    assert found is not None
    assert found["reliability"] == pytest.approx(spearmanr(*seeds).statistic, abs=1e-12)
    # what the truth itself reaches; exact for Pearson's, so within what ranks and sampling change
    assert found["one_seed"] == pytest.approx(spearmanr(truth, seeds[0]).statistic, abs=0.03)
    assert found["mean_of_seeds"] == pytest.approx(spearmanr(truth, seeds.mean(axis=0)).statistic, abs=0.03)
    assert ceiling(seeds[:1]) is None
    opposite = ceiling(np.stack([truth, -truth]))
    assert opposite == {"reliability": 0.0, "one_seed": 0.0, "mean_of_seeds": 0.0}


def test_chance_narrows_with_more_subsets() -> None:
    widths = [chance(count, 2000)[1] for count in (8, 32, 128)]
    assert all(wide > narrow > 0 for wide, narrow in pairwise(widths))
    # standard deviation of Spearman's ρ without association: 1 / sqrt(K - 1)
    assert widths[1] == pytest.approx(1.96 / np.sqrt(31), rel=0.1)


def test_seeds_are_averaged_and_told_apart() -> None:
    truth = np.arange(8.0)
    found = judge({"a": truth}, np.stack([truth, truth[::-1] * 0.5]), 100)
    assert found["rankings"]["a"]["rho_by_seed"] == pytest.approx([1.0, -1.0])
    assert found["rankings"]["a"]["rho"] == pytest.approx(1.0)
