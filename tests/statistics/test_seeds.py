"""Intervals over seeds against the formula written out, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from ifguide.statistics.seeds import seed_interval


def test_the_formula() -> None:
    values = np.array([[0.1, 0.5, 0.9, 0.3], [0.2, 0.4, 0.7, 0.1], [0.3, 0.9, 0.8, 0.4]])
    m = values.mean()
    of_seeds = sum((row.mean() - m) ** 2 for row in values) / (3 * 2)
    of_prompts = sum((column.mean() - m) ** 2 for column in values.T) / 4**2
    freedom = (of_seeds + of_prompts) ** 2 / (of_seeds**2 / 2 + of_prompts**2 / 3)
    half = t.ppf(0.975, freedom) * (of_seeds + of_prompts) ** 0.5
    assert seed_interval(values) == pytest.approx((m - half, m + half), rel=1e-12)


def test_numbers_without_prompts_have_students_interval() -> None:
    values = [2.0, 2.5, 2.2]
    half = t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    assert seed_interval(values) == pytest.approx((np.mean(values) - half, np.mean(values) + half), rel=1e-12)


def test_one_seed_has_the_prompts_alone_and_one_number_nothing() -> None:
    row = np.array([[0.0, 1.0, 1.0, 0.0, 1.0]])
    half = t.ppf(0.975, 4) * (row.var() / 5) ** 0.5
    assert seed_interval(row) == pytest.approx((0.6 - half, 0.6 + half), rel=1e-12)
    assert seed_interval([3.0]) is None and seed_interval([[3.0]]) is None
    assert seed_interval([3.0, 3.0]) == (3.0, 3.0)


def test_it_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        of_seeds, of_prompts = random.normal(0, 0.3, 4)[:, None], random.normal(0, 1.0, 60)[None]
        low, high = seed_interval(1.0 + of_seeds + of_prompts + random.normal(0, 0.5, (4, 60)))
        hits += low <= 1.0 <= high
    assert 0.93 < hits / 2000 < 0.98
