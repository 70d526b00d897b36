"""Scoring inside GPT-NeoX: how a batch is cut into micro-batches, and what each of its labels counts in them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from ifguide_patch.scoring.model import micro_batches, shares_of  # noqa: E402


@pytest.mark.parametrize("rows", range(1, 20))
@pytest.mark.parametrize("tokens", [1, 8, 9, 64, 128])
@pytest.mark.parametrize("length", [1, 8, 9])
def test_text_and_weights_are_cut_alike(rows: int, tokens: int, length: int) -> None:
    text = torch.arange(rows * (length + 1)).view(rows, length + 1)
    weights = torch.arange(1.0, rows * length + 1).view(rows, length)
    micro = micro_batches(text, tokens)
    shares = shares_of(weights, micro)
    assert [len(part) for part in micro] == [len(part) for part in shares] and len({len(part) for part in micro}) == 1
    assert len(micro[0]) == 1 or len(micro[0]) * length <= tokens
    assert torch.equal(torch.cat(list(micro))[:rows], text) and torch.equal(torch.cat(shares)[:rows], weights)
    assert not torch.cat(shares)[rows:].any(), "rows that fill the last part count nothing"
    assert len(micro) * len(micro[0]) - rows < len(micro[0]), "no part is filled alone"
