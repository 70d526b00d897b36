"""Drift: of a model to itself nothing; of a planted edit exactly where it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ifguide.analysis import drift
from ifguide.analysis.drift import cka, cka_by_layer, matrix_drift, neuron_drift, turned
from ifguide.analysis.options import DriftOptions, NeuronOptions
from ifguide.analysis.ranking import Ranked, probe_of_last_layer, rank
from tests.support.insides import FAMILIES, make_bench, small_neox, subject


def test_a_matrix_by_its_singular_values() -> None:
    before, after = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    found = matrix_drift(before, after)
    values = np.linalg.svd((after - before).numpy(), compute_uv=False)
    assert found["squared"] == pytest.approx(sum(values**2))
    assert found["relative"] == pytest.approx(np.sqrt(sum(values**2) / (before**2).sum().item()))
    assert found["stable_rank"] == pytest.approx(sum(values**2) / max(values) ** 2)
    one = torch.outer(torch.arange(1.0, 6.0), torch.arange(1.0, 10.0))
    assert matrix_drift(before, before + one)["stable_rank"] == pytest.approx(1.0)


def test_a_neuron_by_its_angle() -> None:
    before = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.3, 0.7]])
    after = torch.tensor([[0.0, 3.0], [-1.0, 0.0], [2.0, 2.0], [0.3, 0.7]])
    np.testing.assert_allclose(turned(before, after), [1.0, 2.0, 0.0, 0.0], atol=1e-12)
    assert turned(before, after)[3] == 0.0


def test_cka_by_centred_gram_matrices() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 6)) + 4, random.normal(size=(20, 5))
    centre = np.eye(20) - np.ones((20, 20)) / 20

    def hsic(a, b) -> float:
        return float(np.trace(a @ a.T @ centre @ b @ b.T @ centre))

    assert cka(x, y) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)), rel=1e-12)
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
    assert cka(x, 3 * x @ turn + 7) == pytest.approx(1.0, abs=1e-12)


def test_the_interval_of_cka_is_a_jackknife_over_texts() -> None:
    random = np.random.default_rng(1)
    x, y, texts = random.normal(size=(1, 30, 4)), random.normal(size=(1, 30, 4)), np.repeat(np.arange(10), 3)
    found = cka_by_layer(x, y, texts)
    without = np.array([cka(x[0][texts != one], y[0][texts != one]) for one in range(10)])
    error = np.sqrt(9 / 10 * sum((without - without.mean()) ** 2))
    whole = cka(x[0], y[0])
    np.testing.assert_allclose(found["intervals"][0], [whole - 1.96 * error, whole + 1.96 * error])
    alone = cka_by_layer(x, y, np.zeros(30, dtype=int))
    assert alone == {"values": found["values"], "intervals": [[0.0, 1.0]]}, "one text says nothing of others"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_has_not_moved_from_itself(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    bench = make_bench(
        tmp_path, {"base": model, "same": model}, ["abc", "abd", "aef"], ["xyz", "xyw", "uvw"],
        neuron=NeuronOptions(neurons=4, unalign=0), drift=DriftOptions(random_sets=20),
    )  # fmt: skip
    found = drift.analyse(bench)["models"]["same"]
    assert all(row["relative"] == row["squared"] == 0 and row["stable_rank"] is None for row in found["matrices"])
    for kind in ("key", "value"):
        assert found["neurons"][kind]["toxic"] == found["neurons"][kind]["random"] == 0
        assert found["neurons"][kind]["blocks"] == [0.0] * 3
    for kind in ("toxic", "safe"):
        np.testing.assert_allclose(found["cka"][kind]["values"], 1.0, atol=1e-12)


def test_an_edit_is_found_where_it_was_made(tmp_path: Path) -> None:
    """The keys of the toxic set of one model are turned, and nothing else."""
    base = small_neox()
    options = {"neuron": NeuronOptions(neurons=3, unalign=0), "drift": DriftOptions(random_sets=50)}
    texts = (["abc", "abd", "aef", "ghi"], ["xyz", "xyw", "uvw", "rst"])
    (tmp_path / "first").mkdir()
    first = make_bench(tmp_path / "first", {"base": base}, *texts, **options)
    probe = probe_of_last_layer(first, first.base, *first.queries)
    ranked = rank(first.base.anatomy, probe.weight, 3)
    edited = small_neox()
    one = subject(edited)
    for block, number in ranked.neurons:
        one.anatomy.blocks[block].keys[number].mul_(-1.0)
    bench = make_bench(tmp_path, {"base": base, "edited": edited}, *texts, **options)
    result = drift.analyse(bench)
    found = result["models"]["edited"]
    moved = {(row["layer"], row["kind"]) for row in found["matrices"] if row["relative"] > 0}
    assert moved == {(block + 1, "mlp.dense_h_to_4h") for block, _ in ranked.neurons}
    assert found["neurons"]["key"]["toxic"] == pytest.approx(2.0) and found["neurons"]["key"]["random"] == 0.0
    assert found["neurons"]["value"]["toxic"] == 0.0 and found["neurons"]["key"]["share_of_random_below"] == 1.0
    assert "outside of it" in result["findings"][1]["verdict"][0]
    assert "100% lies in mlp.dense_h_to_4h" in result["findings"][0]["verdict"][1]
    assert found["cka"]["toxic"]["values"][-1] < 1 - 1e-9


def test_random_sets_have_as_many_neurons_in_each_block() -> None:
    base, other = subject(small_neox()), subject(small_neox())
    other.anatomy.blocks[1].values.mul_(-1.0)
    # half of the set lies in the block that moved, so half of each random set does
    ranked = Ranked([(1, 0), (0, 4)], [1.0, 0.9])
    found = neuron_drift(base.anatomy, other.anatomy, ranked, 20, 0)
    assert found["value"]["toxic"] == found["value"]["random"] == pytest.approx(1.0)
    assert found["value"]["random_interval"] == pytest.approx([1.0, 1.0])
