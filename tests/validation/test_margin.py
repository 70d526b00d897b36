"""The margin against a literal softmax in fp64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.influence.batches import NO_LABEL
from ifguide.influence.queries import make_query
from ifguide.validation.margin import Likelihoods, QuerySets, difference_interval, log_likelihoods
from tests.support.tiny_models import tiny_neox

TOXIC = [make_query([5, 6, 7], [8, 9], 0), make_query([5], [9], 0, weight=3.0), make_query([1] * 9, [2, 3, 4], 0)]
SAFE = [make_query([5, 6], [10], 0), make_query([2], [3, 3], 0, weight=0.5)]
QUERIES = QuerySets(TOXIC, SAFE)


def literal(model: torch.nn.Module, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Σ log p(label), one query by itself, fp64."""
    with torch.no_grad():
        logits = model.double()(input_ids=torch.from_numpy(inputs)[None]).logits[0].numpy()
    total = 0.0
    for row, label in zip(logits, labels):
        if label != NO_LABEL:
            total += row[label] - row.max() - np.log(np.exp(row - row.max()).sum())
    return total


def test_likelihoods_and_margin_are_those_of_a_literal_softmax() -> None:
    found = log_likelihoods(tiny_neox(), QUERIES)
    toxic, safe = ([literal(tiny_neox(), one.inputs, one.labels) for one in some] for some in (TOXIC, SAFE))
    np.testing.assert_allclose(found.toxic, toxic, rtol=1e-5)
    np.testing.assert_allclose(found.safe, safe, rtol=1e-5)
    weighted = (toxic[0] + 3 * toxic[1] + toxic[2]) / 5 - (safe[0] + 0.5 * safe[1]) / 1.5
    assert found.margin(QUERIES) == pytest.approx(weighted, rel=1e-5)
    exact = log_likelihoods(tiny_neox().double(), QUERIES)
    np.testing.assert_allclose(exact.toxic, toxic, rtol=1e-6)


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = tiny_neox().train()
    log_likelihoods(model, QUERIES)
    assert model.training


def test_the_interval_is_over_queries_and_paired() -> None:
    random = np.random.default_rng(0)
    queries = QuerySets([make_query([1], [2], 0)] * 300, [make_query([1], [2], 0)] * 300)
    hard = random.normal(-50, 20, 300)
    before = Likelihoods(tuple(hard), tuple(hard))
    after = Likelihoods(tuple(hard - 1 + random.normal(0, 0.1, 300)), tuple(hard))
    low, high = difference_interval(after, before, queries)
    assert low < -1 < high and high - low < 0.05
    assert difference_interval(before, before, queries) == (0.0, 0.0)
