"""Plain language modelling, and the per-token cross-entropy that every objective starts from.

Shapes: B samples of a micro-batch, T tokens of a sample, V padded vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ifguide.objectives.base import Batch, Objective, TokenBatch


def token_losses(model: Any, batch: TokenBatch) -> Tensor:
    """``l = -log p(label)`` of every label, nats, float32[B, T]."""
    return label_losses(model(input_ids=batch.tokens, use_cache=False).logits, batch)


def label_losses(logits: Tensor, batch: TokenBatch) -> Tensor:
    """`token_losses` from the logits[B, T, V] of the batch."""
    return F.cross_entropy(logits.float().flatten(0, 1), batch.labels.flatten(), reduction="none").view_as(batch.labels)


def masked_sums(ce: Tensor, loss_mask: Tensor) -> Tensor:
    """float64[2]: the cross-entropy of all labels that count, and their number."""
    mask = loss_mask.flatten().double()
    return torch.stack([(ce.detach().flatten().double() * mask).sum(), mask.sum()])


class CrossEntropy(Objective):
    """The mean cross-entropy of the labels that count. Logs ``lm_loss``."""

    name = "lm"
    num_sums = 2

    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        mask = batch.text.loss_mask
        ce = token_losses(model, batch.text)
        return (ce * mask).sum() / mask.sum(), masked_sums(ce, mask)

    def report(self, sums: Tensor) -> dict[str, float]:
        total, count = sums.tolist()
        return {"lm_loss": total / max(count, 1.0)}
