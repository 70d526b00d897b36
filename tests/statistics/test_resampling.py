"""The bootstrap against closed forms, against a literal loop, and against itself in other blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ifguide.errors import InputError, NumericsError
from ifguide.statistics import resampling
from ifguide.statistics.resampling import (
    as_pairs,
    bootstrap,
    interval,
    recognise,
    statistic,
)

RANDOM = np.random.default_rng(5)


def test_spread_and_interval_of_a_mean_are_the_closed_form() -> None:
    values = RANDOM.normal(2.0, 3.0, 400)
    draws = bootstrap(as_pairs(values), "mean", resamples=40_000, seed=1)
    stderr = values.std() / math.sqrt(values.size)
    assert draws.mean() == pytest.approx(values.mean(), abs=5 * stderr / math.sqrt(40_000))
    assert draws.std() == pytest.approx(stderr, rel=0.02)
    assert interval(draws) == pytest.approx(
        (values.mean() - 1.96 * stderr, values.mean() + 1.96 * stderr), abs=0.1 * stderr
    )


def test_a_ratio_has_the_delta_methods_spread() -> None:
    """Perplexity of texts of unlike lengths: exp(-sum nats / sum tokens)."""
    tokens = RANDOM.integers(5, 60, 500).astype(float)
    nats = -tokens * RANDOM.normal(3.0, 0.4, 500)
    pairs = np.stack([nats, tokens], axis=1)
    ratio = nats.sum() / tokens.sum()
    spread = math.sqrt(((nats - ratio * tokens) ** 2).sum()) / tokens.sum()
    value = math.exp(-ratio)
    assert statistic(pairs, "perplexity") == pytest.approx(value, rel=1e-12)
    assert bootstrap(pairs, "perplexity", 20_000, seed=2).std() == pytest.approx(value * spread, rel=0.03)
    bits = bootstrap(pairs, "bits", 20_000, seed=2)
    assert bits.std() == pytest.approx(spread / math.log(2), rel=0.03)


@pytest.mark.parametrize("transform", resampling.TRANSFORMS)
def test_every_resample_is_the_literal_one(transform: str) -> None:
    pairs = np.stack([RANDOM.normal(size=(7, 3)), RANDOM.uniform(1, 2, (7, 3))], axis=-1)
    draws = bootstrap(pairs, transform, resamples=5, seed=3)
    chosen = np.random.default_rng(3).integers(0, 7, size=(5, 7))
    for number, prompts in enumerate(chosen):
        for column in range(3):
            literal = statistic(np.array([pairs[prompt, column] for prompt in prompts]), transform)
            assert draws[number, column] == pytest.approx(literal, rel=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = as_pairs(RANDOM.normal(size=50))
    whole = bootstrap(pairs, "mean", 1000, seed=4)
    monkeypatch.setattr(resampling, "_BLOCK_ELEMENTS", 350)
    assert bootstrap(pairs, "mean", 1000, seed=4) == pytest.approx(whole, abs=1e-12)


def test_an_interval_of_equal_values_is_the_value() -> None:
    assert interval(bootstrap(as_pairs([0.25] * 9), "mean", 100)) == (0.25, 0.25)


def test_a_metric_is_recognised_by_its_value() -> None:
    logs = as_pairs([-1.0, -2.5])
    assert recognise(logs, -1.75) == "mean"
    assert recognise(logs, math.exp(1.75)) == "perplexity"
    assert recognise(np.array([[-6.0, 2.0], [-1.0, 5.0]]), 1 / math.log(2)) == "bits"
    assert recognise(logs, 42.0) is None


def test_bad_values() -> None:
    with pytest.raises(NumericsError, match="prompt 1 "):
        bootstrap(as_pairs([0.0, math.nan]), "mean", 10)
    with pytest.raises(InputError, match="0 prompts"):
        bootstrap(np.empty((0, 2)), "mean", 10)
    with pytest.raises(InputError, match="0 resamples"):
        bootstrap(as_pairs([0.1]), "mean", 0)
    with pytest.raises(InputError, match="shape"):
        as_pairs(np.zeros((2, 3)))
