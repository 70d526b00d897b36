"""Attention that carries forward-mode tangents, by hand and in pieces.

Fused kernels have no forward-mode rule, and the stock eager attention holds a [T, T] tensor per head for the whole
batch, several for its tangent. For ``S = Q K^T c``, ``P = softmax(S)``, ``O = P V``:

    Ṡ = [Q̇ Q] [K K̇]^T c,    M = P ∘ Ṡ,    Ȯ = M V - rowsum(M) ∘ O + P V̇

Rows of queries are independent, so a few at a time are enough, and they meet only the keys before them: half of the
work is never done, and a piece stays in the cache. Without tangents the fused kernel does it all.

Everything stays in the inputs' precision (the stock softmax is fp32 at most, which an fp64 test would see).

Shapes: B sequences, A heads, T positions, D per head; a piece has b of the sequences and R rows of queries that end at
position S.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ifguide.compat.transformers import fused_attention, register_attention

NAME = "ifguide_dual"

# elements of [b, A, R, T] that live at a time: in the cache of a CPU, enough to fill a GPU
_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}
# rows of a piece where memory allows them: at least the one, and a share of the sequence; shorter ones meet fewer
# keys in vain, longer ones make better products
_MIN_ROWS, _PIECES = 128, 8


def register() -> None:
    """Make ``attn_implementation="ifguide_dual"`` known to transformers, with the fused kernel's masks."""
    register_attention(NAME, dual_attention)


def dual_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Outputs [B, T, A, D] from ``query``[B, A, T, D], ``key`` and ``value`` (fewer heads where they are grouped).

    ``attention_mask``[B, 1, T, T] is True where a key is seen; None means every key up to the query's own.
    Differentiates backward as well; forward-mode tangents only under `torch.no_grad`.
    """
    (q, dq), (k, dk), (v, dv) = map(forward_ad.unpack_dual, (query, key, value))
    if dq is None and dk is None and dv is None:
        return fused_attention()(module, q, k, v, attention_mask, dropout, scaling, **options)
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, dk, v, dv = (None if x is None else x.repeat_interleave(groups, dim=1) for x in (k, dk, v, dv))
    q = q * scaling
    # Ṡ = left right^T
    if dq is not None:
        dq = dq * scaling
    left = _join(dq, q if dk is not None else None)
    right = _join(k if dq is not None else None, dk)

    batch, heads, length, _ = q.shape
    output = q.new_empty(batch, length, heads, v.shape[-1])
    tangent = next(x for x in (dq, dk, dv) if x is not None).new_empty(output.shape)
    together, rows = piece(batch, heads, length, q.device.type)
    for first in range(0, batch, together):
        some = slice(first, first + together)
        for start in range(0, length, rows):
            stop = min(start + rows, length)
            here = (some, slice(None), slice(start, stop))
            seen = (some, slice(None), slice(0, stop))
            scores = torch.matmul(q[here], k[seen].transpose(2, 3))
            if attention_mask is None:
                hidden = torch.ones(stop - start, stop - start, dtype=torch.bool, device=q.device).triu_(1)
                scores[..., start:].masked_fill_(hidden, -torch.inf)
            else:
                scores.masked_fill_(~attention_mask[some, :, start:stop, :stop], -torch.inf)
            weights = torch.softmax(scores, dim=-1)
            result = torch.matmul(weights, v[seen])
            output[some, start:stop] = result.transpose(1, 2)
            moved = torch.zeros_like(result) if dv is None else torch.matmul(weights, dv[seen])
            if left is not None and right is not None:
                shifts = torch.matmul(left[here], right[seen].transpose(2, 3)).mul_(weights)
                moved = moved + torch.matmul(shifts, v[seen]) - result * shifts.sum(dim=-1, keepdim=True)
            tangent[some, start:stop] = moved.transpose(1, 2)
    return forward_ad.make_dual(output, tangent), None


def _join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Beside each other, as far as they exist."""
    present = [x for x in (a, b) if x is not None]
    return torch.cat(present, dim=-1) if present else None


def piece(batch: int, heads: int, length: int, device: str) -> tuple[int, int]:
    """Sequences and rows of queries of one piece of a batch [``batch``, ``heads``, ``length``]."""
    elements = _ELEMENTS.get(device, _ELEMENTS["cpu"])
    rows = min(length, max(_MIN_ROWS, -(-length // _PIECES)), max(1, elements // (heads * length)))
    return max(1, min(batch, elements // (heads * length * rows))), rows
