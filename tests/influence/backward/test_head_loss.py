"""The head's loss in chunks against torch's own, backward through all logits at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ifguide.influence import head
from ifguide.influence.backward.head_loss import head_loss


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_weighted_cross_entropy(model, weighted, chunk, monkeypatch):
    monkeypatch.setitem(head._ELEMENTS, "cpu", chunk * model.vocab_size)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, model.head.in_features, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, model.vocab_size, (7,), generator=generator)
    weights = torch.randn(7, generator=generator, dtype=torch.float64) if weighted else None
    ours, plain = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    found = head_loss(model, ours, labels, weights)
    losses = functional.cross_entropy(model.logits(plain), labels, reduction="none")
    expected = (losses if weights is None else losses * weights).sum()
    (3 * found).backward()
    (3 * expected).backward()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-11, atol=1e-13)


def test_labels_are_chosen_by_the_logits_of_their_rows(model, monkeypatch):
    monkeypatch.setitem(head._ELEMENTS, "cpu", 2 * model.vocab_size)
    hidden = torch.randn(5, model.head.in_features, dtype=torch.float64)
    seen = []

    def choose(logits, rows):
        seen.append(rows)
        torch.testing.assert_close(logits, model.logits(hidden[rows]))
        return logits.argmin(dim=-1)

    found = head_loss(model, hidden, choose)
    worst = model.logits(hidden).argmin(dim=-1)
    torch.testing.assert_close(found, head_loss(model, hidden, worst))
    assert [(rows.start, rows.stop) for rows in seen] == [(0, 2), (2, 4), (4, 5)]


def test_half_precision_is_computed_in_float32(model):
    hidden = torch.randn(4, model.head.in_features).to(torch.bfloat16).requires_grad_()
    found = head_loss(model, hidden, torch.arange(4))
    found.backward()
    assert found.dtype == torch.float32 and hidden.grad.dtype == torch.bfloat16
