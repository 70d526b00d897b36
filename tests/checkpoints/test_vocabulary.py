from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifguide.checkpoints.vocabulary import choose_padding, pad_rows, padded


def neox_padding(size: int, divisible_by: int, ranks: int) -> int:
    """As NeoX computes it: count up."""
    while size % (divisible_by * ranks):
        size += 1
    return size


@given(st.integers(1, 5000), st.integers(0, 300), st.sampled_from([1, 2, 3, 4, 8]))
def test_neox_computes_the_same_rows_and_none_is_lost(tokens: int, unused: int, ranks: int) -> None:
    multiple, rows = choose_padding(tokens, tokens + unused, ranks, None)
    assert neox_padding(tokens, multiple, ranks) == rows >= tokens + unused
    assert padded(tokens, 128 * ranks) == neox_padding(tokens, 128, ranks)


def test_pythia() -> None:
    """50277 tokens in 50304 rows: NeoX's default gives them on one rank, 128 more on two."""
    assert choose_padding(50277, 50304, 1, None) == (128, 50304)
    assert choose_padding(50277, 50304, 2, None) == (128, 50432)
    assert choose_padding(50277, 50432, 1, None) == (50432, 50432)


def test_a_choice_that_loses_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="gives 50278 rows for the tokenizer's 50277 tokens, the model has 50304"):
        choose_padding(50277, 50304, 2, 1)


@given(st.integers(0, 200))
def test_added_rows_raise_the_loss_by_a_bounded_amount(seed: int) -> None:
    """log(1 + k/V) at most, for any hidden state (Jensen); rows of zeros can cost any amount."""
    generator = torch.Generator().manual_seed(seed)
    matrix, hidden = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3 for shape in ((40, 6), (6,)))
    larger = pad_rows(matrix, 48).double()
    before, after = (torch.logsumexp(rows @ hidden, 0).item() for rows in (matrix, larger))
    assert before <= after <= before + math.log(1 + 8 / 40) + 1e-6
    assert torch.equal(larger[:40], matrix)
    assert pad_rows(matrix, 40) is matrix
