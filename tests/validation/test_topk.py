"""Leaving out the best: which tokens, and what the curve says."""

from __future__ import annotations

import numpy as np
import pytest

from ifguide.validation.rankings import Ranking, best, random_ranking
from ifguide.validation.topk import dropped_by, run_topk
from tests.validation.test_lds import QUERIES, N, Quadratic, ranking


def test_the_best_are_the_best_and_ties_fall_by_chance() -> None:
    values = np.array([0.0, 3.0, 1.0, 3.0, 1.0, 1.0, -2.0, 1.0, 9.0])
    ties = ranking("s", values)
    assert best(ties, (0, 9), 3, seed=0)[0] == 8 and set(best(ties, (0, 9), 3, seed=0)) == {1, 3, 8}
    assert set(best(ties, (0, 8), 2, seed=0)) == {1, 3}
    last = {tuple(sorted(best(ties, (0, 9), 5, seed))) for seed in range(30)}
    assert len(last) == 6 and all({1, 3, 8} <= set(places) for places in last)
    assert list(best(ties, (0, 9), 5, 4)) == list(best(ties, (0, 9), 5, 4))


def test_smaller_shares_are_parts_of_larger_ones() -> None:
    found = dropped_by([random_ranking(3), ranking("s", np.arange(200.0))], (20, 120), (0.05, 0.1, 0.5), seed=0)
    for places in found.values():
        assert [len(some) for some in places] == [5, 10, 50]
        assert set(places[0]) < set(places[1]) < set(places[2]) <= set(range(20, 120))
    assert set(found["s"][0]) == set(range(115, 120))


def test_the_curve_of_a_quadratic_loss() -> None:
    """Leaving out the best lowers the margin by what the closed form says; leaving out the worst raises it."""
    problem = Quadratic()
    rankings: list[Ranking] = [ranking("scores", problem.scores), ranking("worst", -problem.scores)]
    dropped = {**dropped_by(rankings, (0, N), (0.01, 0.1), 0), "mask": [np.arange(7)]}
    found = run_topk(dropped, N, [1, 2], QUERIES, problem.retrain)
    margin = problem.toxic - problem.safe
    for name, places in dropped.items():
        assert [point["tokens"] for point in found["rankings"][name]] == [len(some) for some in places]
        for point, some in zip(found["rankings"][name], places):
            kept = np.delete(problem.targets, some, axis=0)
            expected = margin @ (kept.mean(axis=0) - problem.targets.mean(axis=0))
            assert point["change"] == pytest.approx(expected) and point["share"] == len(some) / N
            assert point["change_toxic"] - point["change_safe"] == pytest.approx(expected)
            assert point["change_by_seed"] == pytest.approx([expected] * 2)
            # one query a side: nothing to resample
            assert point["intervals"] == [pytest.approx([expected] * 2)] * 2
    own, worst = (np.array([p["change"] for p in found["rankings"][name]]) for name in ("scores", "worst"))
    assert (np.diff(own) < 0).all() and (own < 0).all() and (worst > 0).all()
