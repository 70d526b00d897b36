"""Truncation against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch

from ifguide.errors import InputError
from ifguide.influence.passes.low_rank import truncate


def _matrix(outputs, inputs, seed=0):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)])
@pytest.mark.parametrize("rank", [1, 4, 7])
def test_is_the_best_approximation(shape, rank):
    matrix = _matrix(*shape)
    factors, energy = truncate({"layer": matrix}, rank)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    expected = (left[:, :rank] * values[:rank]) @ right[:rank]
    torch.testing.assert_close(factors["layer"].dense(), expected, rtol=1e-10, atol=1e-10)
    assert factors["layer"].left.shape == (shape[0], rank)
    assert factors["layer"].right.shape == (shape[1], rank)
    assert energy["kept"] == pytest.approx(float(values[:rank].square().sum() / values.square().sum()))


def test_energy_is_that_of_all_layers_and_of_the_lowest():
    flat, peaked = torch.eye(8, dtype=torch.float64), torch.ones(8, 5, dtype=torch.float64)
    _, energy = truncate({"peaked": peaked, "flat": flat}, 2)
    assert energy == {
        "rank": 2,
        "kept": pytest.approx((40 + 2) / (40 + 8)),
        "lowest": {"layer": "flat", "kept": pytest.approx(0.25)},
    }


def test_a_rank_above_the_matrix_keeps_it():
    matrix = _matrix(5, 3).to(torch.float32)
    factors, energy = truncate({"layer": matrix, "still": torch.zeros(2, 4)}, 64)
    assert factors["layer"].left.shape == (5, 3)
    assert factors["layer"].left.dtype == torch.float32
    torch.testing.assert_close(factors["layer"].dense(), matrix)
    assert not factors["still"].dense().any()
    assert energy["kept"] == pytest.approx(1)


def test_a_rank_of_nothing():
    with pytest.raises(InputError, match="--rank 0"):
        truncate({"layer": _matrix(3, 3)}, 0)
