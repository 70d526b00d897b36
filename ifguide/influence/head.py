"""The head's part of a loss, differentiated by hand.

    l = -log softmax(z)_y,  z = W h + b:    ∇_h l = W^T p - W[y],   p = softmax(z)

The head is not tracked, so this is all that a pass needs of it: it is exact, it serves any number of directions, and
the vocabulary never meets autograd. Logits, their log-softmax and their gradient would be 2.5 GB for 4096 positions and
50k tokens: a few rows of logits live at a time.

Shapes: N labelled positions, H hidden, V vocabulary; R rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ifguide.models.tracked import ScoredModel

Labels = Callable[[Tensor, slice], Tensor]
"""Logits[R, V] (not to be changed) and the rows that they are of -> the labels[R] of these rows."""
# elements of [rows, V] that live at a time: near the cache on a CPU, enough to fill a GPU
_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}


def rows_at_a_time(device: str, vocabulary: int) -> int:
    """Rows of logits that the head's work is cut into, at least 1."""
    return max(1, _ELEMENTS.get(device, _ELEMENTS["cpu"]) // vocabulary)


def loss_gradient(model: ScoredModel, hidden: Tensor, labels: Tensor) -> Tensor:
    """``∇_h l``[N, H] of the loss of ``labels``[N] at the last hidden states ``hidden``[N, H], at least in float32.

    bfloat16 would round logits of some tens to a tenth, and p - 1 of a likely label to nothing.
    """
    return loss_and_gradient(model, hidden, labels)[1]


@torch.no_grad()
def loss_and_gradient(
    model: ScoredModel, hidden: Tensor, labels: Tensor | Labels, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``Σ_n w_n l_n`` and its ``∇_h``[N, H] at the last hidden states ``hidden``[N, H], at least in float32.

    Args:
        labels: [N], or what chooses them by the logits.
        weights: ``w``[N] (None: 1 each).
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    weight = model.head.weight.to(dtype)
    bias = None if model.head.bias is None else model.head.bias.to(dtype)
    at_a_time = rows_at_a_time(hidden.device.type, weight.shape[0])
    total = torch.zeros((), dtype=dtype, device=hidden.device)
    gradient = torch.empty_like(hidden, dtype=dtype)
    for start in range(0, len(hidden), at_a_time):
        rows = slice(start, min(start + at_a_time, len(hidden)))
        logits = functional.linear(hidden[rows].to(dtype), weight, bias)
        chosen = labels[rows] if isinstance(labels, Tensor) else labels(logits, rows)
        highest = logits.amax(dim=-1, keepdim=True)
        reached = logits.gather(1, chosen[:, None])
        # softmax in place, so that one tensor over the vocabulary is all there is
        numerators = logits.sub_(highest).exp_()
        sums = numerators.sum(dim=-1, keepdim=True)
        losses = sums.log().add_(highest).sub_(reached)
        out = torch.mm(numerators, weight, out=gradient[rows])
        out.div_(sums).sub_(weight[chosen])
        if weights is not None:
            share = weights[rows, None].to(dtype)
            losses.mul_(share)
            out.mul_(share)
        total += losses.sum()
        del logits, numerators  # before the next rows have theirs
    return total, gradient
