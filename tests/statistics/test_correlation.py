"""Spearman's correlation: of hand-made ranks, with ties, and where there is none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ifguide.statistics.correlation import rank_correlation


def mean_ranks(values: np.ndarray) -> list[float]:
    """Of each value: how many are smaller, and half of those that are equal to it."""
    return [float((values < value).sum() + (values == value).sum() / 2) for value in values]


@pytest.mark.parametrize("decimals", [12, 1, 0])
def test_it_is_pearsons_of_the_mean_ranks(decimals: int) -> None:
    """Without ties, with some, with many."""
    rng = np.random.default_rng(0)
    a = np.round(rng.normal(size=300), decimals)
    b = np.round(a + rng.normal(size=300), decimals)
    expected = np.corrcoef(mean_ranks(a), mean_ranks(b))[0, 1]
    assert rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(torch.from_numpy(a), torch.from_numpy(b)) == rank_correlation(a, b)


def test_only_the_order_counts() -> None:
    a = np.array([3.0, 1.0, 2.0, 9.0])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1) and rank_correlation(a, -(a**3)) == pytest.approx(-1)


@pytest.mark.parametrize("b", [np.ones(4), np.array([1.0, np.nan, 2.0, 3.0])])
def test_it_is_zero_where_there_is_none(b: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rank_correlation(np.arange(4.0), b) == 0
