"""The weighted loss of the head as one number that autograd can go back from, a few rows of logits at a time.

    L = Σ_n w_n l_n,    l_n = -log softmax(W h_n + b)_y:    ∇_h L = w_n (W^T p_n - W[y_n])

Logits, their log-softmax and their gradient would be 2.5 GB for 4096 positions and 50k tokens, and the head is not
tracked. So the gradient at the hidden states is computed beside the loss, and the vocabulary never meets autograd.

Shapes: N labelled positions, H hidden, V vocabulary; R rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ifguide.influence.head import rows_at_a_time
from ifguide.models.tracked import ScoredModel

Labels = Callable[[Tensor, slice], Tensor]
"""Logits[R, V] (not to be changed) and the rows that they are of -> the labels[R] of these rows."""


def head_loss(model: ScoredModel, hidden: Tensor, labels: Tensor | Labels, weights: Tensor | None = None) -> Tensor:
    """``L``, a number whose gradient reaches ``hidden``[N, H] alone; at least in float32.

    Args:
        labels: [N], or what chooses them by the logits.
        weights: ``w``[N] (None: 1 each).
    """
    choose = _fixed(labels) if isinstance(labels, Tensor) else labels
    value, gradient = _value_and_gradient(model, hidden.detach(), choose, weights)
    loss: Tensor = _HeadLoss.apply(hidden, gradient.to(hidden.dtype), value)
    return loss


def _fixed(labels: Tensor) -> Labels:
    return lambda logits, rows: labels[rows]


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


@torch.no_grad()
def _value_and_gradient(
    model: ScoredModel, hidden: Tensor, choose: Labels, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    weight = model.head.weight.to(dtype)
    bias = None if model.head.bias is None else model.head.bias.to(dtype)
    at_a_time = rows_at_a_time(hidden.device.type, weight.shape[0])
    total = torch.zeros((), dtype=dtype, device=hidden.device)
    gradient = torch.empty_like(hidden, dtype=dtype)
    for start in range(0, len(hidden), at_a_time):
        rows = slice(start, min(start + at_a_time, len(hidden)))
        logits = functional.linear(hidden[rows].to(dtype), weight, bias)
        labels = choose(logits, rows)
        highest = logits.amax(dim=-1, keepdim=True)
        reached = logits.gather(1, labels[:, None])
        # softmax in place, so that one tensor over the vocabulary is all there is
        numerators = logits.sub_(highest).exp_()
        sums = numerators.sum(dim=-1, keepdim=True)
        losses = sums.log().add_(highest).sub_(reached)
        out = torch.mm(numerators, weight, out=gradient[rows])
        out.div_(sums).sub_(weight[labels])
        if weights is not None:
            share = weights[rows, None].to(dtype)
            losses.mul_(share)
            out.mul_(share)
        total += losses.sum()
    return total, gradient
