"""Attention that carries a forward-mode tangent, by hand.

Fused kernels have no forward rule, and the stock eager attention spends more on the rule of its softmax than on
its products. For ``S = Q K^T c + mask``, ``P = softmax(S)``, ``O = P V``:

    Ṡ = (Q̇ K^T + Q K̇^T) c,    Ṗ = P ∘ (Ṡ - rowsum(P ∘ Ṡ)),    Ȯ = Ṗ V + P V̇

Everything stays in the inputs' precision (the stock softmax is fp32 at most, which an fp64 test would see).

Shapes: B sequences, A heads, T positions, D per head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

NAME = "ifguide_dual"


def register() -> None:
    """Make ``attn_implementation="ifguide_dual"`` known to transformers, with the eager attention's masks."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, dual_attention)
    AttentionMaskInterface.register(NAME, eager_mask)


def dual_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Outputs [B, T, A, D] from ``query``[B, A, T, D], ``key`` and ``value`` (fewer heads where they are grouped).

    Differentiates backward as well; forward-mode tangents only under `torch.no_grad`.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    (q, dq), (k, dk), (v, dv) = map(forward_ad.unpack_dual, (query, key, value))
    if groups > 1:
        k, dk, v, dv = (None if x is None else x.repeat_interleave(groups, dim=1) for x in (k, dk, v, dv))
    scores = torch.matmul(q * scaling, k.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1)
    output = torch.matmul(weights, v)
    if dq is None and dk is None and dv is None:
        return output.transpose(1, 2).contiguous(), None
    tangent = torch.zeros_like(output) if dv is None else torch.matmul(weights, dv)
    if dq is not None or dk is not None:
        moved = torch.matmul(_or_zeros(dq, q) * scaling, k.transpose(2, 3))
        if dk is not None:
            moved += torch.matmul(q * scaling, dk.transpose(2, 3))
        moved *= weights
        moved.addcmul_(weights, moved.sum(dim=-1, keepdim=True), value=-1)
        tangent += torch.matmul(moved, v)
    return forward_ad.make_dual(output.transpose(1, 2).contiguous(), tangent.transpose(1, 2).contiguous()), None


def _or_zeros(tangent: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tangent is None else tangent
