"""Shares in documents: against the formula word for word, and against known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from ifguide.statistics.clustered import ClusteredShare, difference, wilson


def counted(units: list[int], hits: list[int], piece: int = 3) -> ClusteredShare:
    found = ClusteredShare()
    for begin in range(0, len(units), piece):
        found.add(np.array(units[begin : begin + piece]), np.array(hits[begin : begin + piece]))
    return found


@pytest.mark.parametrize(("hits", "count"), [(0, 3), (2, 7), (50, 200), (7, 7)])
def test_wilson(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_is_that_of_the_effective_sample() -> None:
    units, hits = [4, 0, 6, 3, 9, 5, 2, 8], [4, 0, 1, 0, 9, 1, 2, 0]
    found = counted(units, hits)
    p = sum(hits) / sum(units)
    variance = 7 / 6 * sum((m - p * n) ** 2 for n, m in zip(units, hits)) / sum(units) ** 2
    assert found.documents == 7 and found.share == p
    assert found.interval() == pytest.approx(wilson(p, p * (1 - p) / variance))


def test_documents_that_agree_count_as_documents() -> None:
    assert counted([5, 5, 5], [0, 0, 0]).interval() == pytest.approx(wilson(0.0, 3))
    assert counted([10], [5]).interval() == pytest.approx(wilson(0.5, 1))
    assert counted([0, 0], [0, 0]).interval() is None and counted([0], [0]).share is None


def test_the_interval_covers_where_spans_of_a_document_are_alike() -> None:
    covered = {"clustered": 0, "as if independent": 0}
    generator = np.random.default_rng(0)
    for _ in range(200):
        units = generator.integers(1, 30, 60)
        rates = generator.beta(0.5, 1.5, 60)  # mean 1/4; documents are masked nearly whole or not at all
        found = ClusteredShare()
        found.add(units, generator.binomial(units, rates))
        for name, span in (
            ("clustered", found.interval()),
            ("as if independent", wilson(found.share or 0, found.units)),
        ):
            assert span is not None
            covered[name] += span[0] <= 0.25 <= span[1]
    assert covered["clustered"] >= 180 > covered["as if independent"]


def test_the_difference_is_newcombes() -> None:
    first, second = counted([1] * 80, [1] * 56 + [0] * 24), counted([1] * 70, [1] * 48 + [0] * 22)
    found = difference(first, second)
    assert found is not None and found[0] == pytest.approx(56 / 80 - 48 / 70)
    assert (first.interval() or ())[0] == pytest.approx(wilson(0.7, 80)[0], abs=2e-3)
    l1, u1 = first.interval() or (math.nan, math.nan)
    l2, u2 = second.interval() or (math.nan, math.nan)
    assert found[1] == pytest.approx(found[0] - math.sqrt((0.7 - l1) ** 2 + (u2 - 48 / 70) ** 2))
    assert found[2] == pytest.approx(found[0] + math.sqrt((u1 - 0.7) ** 2 + (48 / 70 - l2) ** 2))
    assert difference(first, ClusteredShare()) is None
