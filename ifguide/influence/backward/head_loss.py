"""The weighted loss of the head as one number that autograd can go back from, a few rows of logits at a time.

    L = Σ_n w_n l_n,    l_n = -log softmax(W h_n + b)_y:    ∇_h L = w_n (W^T p_n - W[y_n])

The gradient at the hidden states is computed beside the loss (`influence.head`): the vocabulary never meets autograd.

Shapes: N labelled positions, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ifguide.influence.head import Labels, loss_and_gradient
from ifguide.models.tracked import ScoredModel


def head_loss(model: ScoredModel, hidden: Tensor, labels: Tensor | Labels, weights: Tensor | None = None) -> Tensor:
    """``L``, a number whose gradient reaches ``hidden``[N, H] alone; at least in float32.

    Args:
        labels: [N], or what chooses them by the logits.
        weights: ``w``[N] (None: 1 each).
    """
    value, gradient = loss_and_gradient(model, hidden.detach(), labels, weights)
    loss: Tensor = _HeadLoss.apply(hidden, gradient.to(hidden.dtype), value)
    return loss


class _HeadLoss(torch.autograd.Function):
    """A number with a gradient that is known already."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None
