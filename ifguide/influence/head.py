"""The head's part of a loss, differentiated by hand.

    l = -log softmax(z)_y,  z = W h + b:    ∇_h l = W^T p - W[y],   p = softmax(z)

The head is not tracked, so this is all that a pass needs of it: it is exact, it serves any number of directions, and
the vocabulary never meets autograd.

Shapes: N labelled positions, H hidden, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ifguide.models.tracked import ScoredModel

# elements of [rows, V] that live at a time: near the cache on a CPU, enough to fill a GPU
_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}


def rows_at_a_time(device: str, vocabulary: int) -> int:
    """Rows of logits that the head's work is cut into, at least 1."""
    return max(1, _ELEMENTS.get(device, _ELEMENTS["cpu"]) // vocabulary)


@torch.no_grad()
def loss_gradient(model: ScoredModel, hidden: Tensor, labels: Tensor) -> Tensor:
    """``∇_h l``[N, H] of the loss of ``labels``[N] at the last hidden states ``hidden``[N, H], at least in float32.

    bfloat16 would round logits of some tens to a tenth, and p - 1 of a likely label to nothing.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    weight = model.head.weight.to(dtype)
    bias = None if model.head.bias is None else model.head.bias.to(dtype)
    rows = rows_at_a_time(hidden.device.type, weight.shape[0])
    result = torch.empty_like(hidden, dtype=dtype)
    for h, y, out in zip(hidden.split(rows), labels.split(rows), result.split(rows), strict=True):
        logits = functional.linear(h.to(dtype), weight, bias)
        # softmax in place, so that one tensor over the vocabulary is all there is
        numerators = logits.sub_(logits.amax(dim=-1, keepdim=True)).exp_()
        torch.mm(numerators, weight, out=out)
        out.div_(numerators.sum(dim=-1, keepdim=True)).sub_(weight[y])
    return result
