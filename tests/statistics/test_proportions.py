"""Wilson's interval: published values, exact ends, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from ifguide.statistics.proportions import proportion_interval


def test_published_values() -> None:
    """0, 5 and 10 of 10; 81 of 263 (Newcombe 1998)."""
    assert proportion_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert proportion_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert proportion_interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert proportion_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize("count", [1, 3, 20, 997])
def test_the_ends_are_exact(count: int) -> None:
    """No 6e-18 in a table."""
    assert proportion_interval(0.0, count)[0] == 0 and proportion_interval(1.0, count)[1] == 1


def test_it_covers_what_it_should_where_the_bootstrap_does_not() -> None:
    seen = np.random.default_rng(0).binomial(20, 0.05, 4000)
    inside = [low <= 0.05 <= high for low, high in (proportion_interval(k / 20, 20) for k in seen)]
    assert np.mean(inside) > 0.9
