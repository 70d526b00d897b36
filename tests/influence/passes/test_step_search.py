"""The search finds the best step, says how good it is, and gives up where nothing is good enough."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ifguide.influence.passes import step_search
from ifguide.influence.passes.difference import DifferencePass
from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.passes.step_search import GATE, STEPS, correlation, sample_batches, search_step, top_overlap
from ifguide.influence.windows import cut
from ifguide.models.tracked import load_model
from tests.influence.conftest import EOD, WINDOW, save_tiny_model
from tests.influence.reference import random_direction
from tests.support.datasets import random_documents, write_tokens


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A float32 model with weights of the usual size: one that a difference suits."""
    return load_model(save_tiny_model(tmp_path_factory.mktemp("mild") / "neox", "neox", scale=1.0), device="cpu")


@pytest.fixture
def windows(tmp_path):
    return cut(write_tokens(tmp_path / "s_text_document", random_documents([30] * 40)), EOD, WINDOW, 4)


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_step_passes_and_the_table_tells_the_truth(single, windows, one_sided):
    directions = [random_direction(single), random_direction(single, 2)]
    batches = sample_batches(windows, 256)
    found = search_step(single, directions, batches, one_sided)
    assert found.step is not None and len(found.table) > len(STEPS)
    assert [row["step"] for row in found.table] == sorted((row["step"] for row in found.table), reverse=True)
    gate = step_search.ONE_SIDED_GATE if one_sided else GATE
    assert found.correlation >= gate[0] and found.jaccard >= gate[1]
    row = next(row for row in found.table if row["step"] == found.step)
    assert (found.correlation, found.jaccard) == (min(row["correlation"]), min(row["jaccard"]))
    assert found.jaccard == max(min(row["jaccard"]) for row in found.table)
    for k, direction in enumerate(directions):
        pairs = [
            [scoring.scores(batch)[0][batch.labelled] for batch in batches]
            for scoring in (DifferencePass(single, [direction], found.step, one_sided),
                            ForwardModePass(single, [direction]))
        ]  # fmt: skip
        a, b = (torch.cat(pieces).numpy().astype(np.float64) for pieces in pairs)
        assert row["correlation"][k] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-7)
    json.dumps(asdict(found), allow_nan=False)


def test_the_search_is_deterministic(single, windows):
    directions = [random_direction(single)]
    first, second = (search_step(single, directions, sample_batches(windows, 256)) for _ in range(2))
    assert first == second


def test_no_step_is_good_enough(single, windows, monkeypatch):
    """What fails in one direction fails: a direction without scores has no correlation."""
    batches, directions = sample_batches(windows, 256), [random_direction(single)]
    zeros = {name: 0 * matrix for name, matrix in directions[0].items()}
    assert search_step(single, directions, batches).step is not None
    assert search_step(single, [*directions, zeros], batches).step is None
    monkeypatch.setattr(step_search, "GATE", (1.1, 0.0))
    found = search_step(single, directions, batches)
    assert found.step is None and found.correlation > 0.9999


def test_the_sample_is_large_enough_whole_and_seeded(windows):
    batches = sample_batches(windows, 256, seed=3, tokens=200)
    assert 200 <= sum(int(batch.labelled.sum()) for batch in batches) < 200 + WINDOW
    again = sample_batches(windows, 256, seed=3, tokens=200)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(batches, again, strict=True))
    everything = sample_batches(windows, 256)
    assert sum(int(batch.labelled.sum()) for batch in everything) == windows.dataset.num_tokens


def test_correlation_and_overlap():
    a = torch.arange(200.0, dtype=torch.float64)
    assert correlation(a, 3 * a + 1) == pytest.approx(1)
    assert correlation(a, -a) == pytest.approx(-1)
    assert correlation(a, torch.ones_like(a)) == correlation(a, a / 0) == 0
    b = a.clone()
    b[[198, 10]] = b[[10, 198]]
    assert top_overlap(a, a) == 1
    assert top_overlap(a, b) == pytest.approx(1 / 3)  # {198, 199} and {10, 199}
    assert top_overlap(torch.zeros(200), a[:200] < 2) == 1  # ties: the first two of each
