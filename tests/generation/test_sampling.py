from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.generation.sampling import sample_top_p
from tests.generation.literal_generation import literal_nucleus, literal_top_p


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_literal_rule(top_p: float, temperature: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(300, 37, dtype=torch.float64) * 2
    uniforms = torch.rand(300, 2, dtype=torch.float64)
    fast = sample_top_p(logits, uniforms, top_p, temperature).tolist()
    slow = [
        literal_top_p(row, tuple(pair), top_p, temperature) for row, pair in zip(logits.tolist(), uniforms.tolist())
    ]
    assert fast == slow


def test_ties_at_the_edge_stay_whatever_their_number() -> None:
    logits = torch.tensor([[0.4, 0.2, 0.2, 0.1, 0.1]], dtype=torch.float64).log().expand(4000, 5)
    uniforms = torch.rand(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert set(sample_top_p(logits, uniforms, 0.5).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("top_p", [0.3, 0.9])
def test_frequencies_are_those_of_the_renormalised_nucleus(top_p: float) -> None:
    generator = torch.Generator().manual_seed(2)
    row = torch.randn(20, generator=generator, dtype=torch.float64)
    p = row.softmax(0).numpy()
    nucleus = sorted(literal_nucleus(p.tolist(), top_p))
    expected = np.zeros(20)
    expected[nucleus] = p[nucleus] / p[nucleus].sum()
    draws = 200_000
    uniforms = torch.rand(draws, 2, generator=generator, dtype=torch.float64)
    tokens = sample_top_p(row.expand(draws, 20), uniforms, top_p).numpy()
    counts = np.bincount(tokens, minlength=20)
    assert counts[expected == 0].sum() == 0
    deviation = (counts - draws * expected)[nucleus] / np.sqrt(draws * expected[nucleus] * (1 - expected[nucleus]))
    assert np.abs(deviation).max() < 4.5


def test_nucleus_is_that_of_transformers() -> None:
    from transformers import TopPLogitsWarper

    torch.manual_seed(3)
    logits = torch.randn(1, 40)
    kept = TopPLogitsWarper(0.8)(None, logits).isfinite()[0].nonzero()[:, 0].tolist()
    uniforms = torch.rand(50_000, 2)
    assert sorted(set(sample_top_p(logits.expand(50_000, 40), uniforms, 0.8).tolist())) == kept


def test_the_largest_uniform_never_leaves_the_nucleus() -> None:
    # in float32 this uniform rounds to 1, and so would an index past the end
    uniforms = torch.full((64, 2), 1 - 1e-12, dtype=torch.float64)
    torch.manual_seed(4)
    logits = torch.randn(64, 50)
    tokens = sample_top_p(logits, uniforms, 0.5)
    for row, token in zip(logits.double().softmax(-1).tolist(), tokens.tolist()):
        assert token in literal_nucleus(row, 0.5)


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.full((3, 6), float("-inf"))
    logits[:, 4] = 0.0
    uniforms = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1 - 1e-9, 0.0]], dtype=torch.float64)
    for top_p in (0.9, 1.0):
        assert sample_top_p(logits, uniforms, top_p).tolist() == [4, 4, 4]


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    logits, uniforms = torch.randn(50, 30), torch.rand(50, 2)
    whole = sample_top_p(logits, uniforms, 0.7)
    monkeypatch.setattr("ifguide.generation.sampling._PIECE_ELEMENTS", 1)
    assert torch.equal(sample_top_p(logits, uniforms, 0.7), whole)
