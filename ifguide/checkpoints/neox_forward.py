"""NeoX's forward pass, literally, over a checkpoint's own shards: what a conversion is held against.

It shares no code with the conversion: nothing is merged, every rank computes its part and the parts are added or
concatenated as NeoX's collectives do. Slow and plain on purpose; fp32, or fp64 to tell rounding from a mistake. The
angles of rotary positions are fp32 in both, as NeoX makes them.

Shapes: B sequences, S positions, H hidden_size, n and k query and key/value heads of one rank, D head size,
V padded vocabulary; ``x[B, S, H]`` is the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ifguide.architectures.architecture import Architecture

Rank = dict[str, Tensor]


@torch.no_grad()
def forward(
    shards: Callable[[int], list[Rank]],
    architecture: Architecture,
    tokens: Tensor,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Logits[B, S, V] of ``tokens[B, S]``.

    Args:
        shards: pipeline layer -> the parameters of each tensor-parallel rank; asked for one layer at a time.
        precision: of everything that is computed.
    """

    def layer(number: int) -> list[Rank]:
        return [{name: tensor.to(precision) for name, tensor in rank.items()} for rank in shards(number)]

    depth = architecture.num_layers
    x = _embed(layer(0), tokens)
    for block in range(depth):
        x = _block(layer(2 + block), architecture, x)
    x = _norm(layer(depth + 3)[0], "norm", architecture, x)
    if architecture.tied_embeddings:
        return torch.cat([x @ rank["word_embeddings.weight"].T for rank in layer(0)], dim=-1)
    return torch.cat([x @ rank["final_linear.weight"].T for rank in layer(depth + 4)], dim=-1)


def _embed(ranks: list[Rank], tokens: Tensor) -> Tensor:
    """Each rank owns a range of the vocabulary and contributes zero for tokens of the others."""
    total: Tensor | float = 0.0
    first = 0
    for rank in ranks:
        rows = rank["word_embeddings.weight"]
        own = (tokens >= first) & (tokens < first + len(rows))
        total = total + rows[torch.where(own, tokens - first, 0)] * own[..., None]
        first += len(rows)
    assert isinstance(total, Tensor)
    return total


def _block(ranks: list[Rank], architecture: Architecture, x: Tensor) -> Tensor:
    first = ranks[0]
    attended = _norm(first, "input_layernorm", architecture, x)
    if architecture.parallel_residual:
        fed = attended if architecture.tied_norms else _norm(first, "post_attention_layernorm", architecture, x)
        parts = [
            _attention(rank, architecture, len(ranks), attended)
            + rank.get("attention.dense.bias", 0.0)
            + _mlp(rank, architecture, fed)
            + rank["mlp.linear2.bias"]
            for rank in ranks
        ]
        return x + torch.stack(parts).sum(0)
    reduced = torch.stack([_attention(rank, architecture, len(ranks), attended) for rank in ranks]).sum(0)
    x = x + reduced + first.get("attention.dense.bias", 0.0)
    fed = _norm(first, "post_attention_layernorm", architecture, x)
    reduced = torch.stack([_mlp(rank, architecture, fed) for rank in ranks]).sum(0)
    return x + reduced + first.get("mlp.linear2.bias", 0.0)


def _norm(rank: Rank, name: str, architecture: Architecture, x: Tensor) -> Tensor:
    if architecture.norm == "rmsnorm":
        return rank[f"{name}.scale"] * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + architecture.norm_epsilon)
    return F.layer_norm(x, x.shape[-1:], rank[f"{name}.weight"], rank[f"{name}.bias"], architecture.norm_epsilon)


def _attention(rank: Rank, architecture: Architecture, ranks: int, x: Tensor) -> Tensor:
    """This rank's heads, projected back: a partial sum, without the output bias."""
    batch, length, _ = x.shape
    heads, size = architecture.num_attention_heads // ranks, architecture.head_size
    mixed = F.linear(x, rank["attention.query_key_value.weight"], rank.get("attention.query_key_value.bias"))
    if architecture.num_kv_heads == architecture.num_attention_heads:
        query, key, value = mixed.view(batch, length, heads, 3 * size).chunk(3, dim=-1)
    else:
        kv_heads = architecture.num_kv_heads // ranks
        query, key, value = mixed.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
        query = query.view(batch, length, heads, size)
        key, value = (
            part.view(batch, length, kv_heads, size).repeat_interleave(heads // kv_heads, dim=2)
            for part in (key, value)
        )
    query, key = (_rotate(part, architecture) for part in (query, key))
    scores = torch.einsum("bqnd,bknd->bnqk", query, key) / math.sqrt(size)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    context = torch.einsum("bnqk,bknd->bqnd", weights, value).reshape(batch, length, heads * size)
    return context @ rank["attention.dense.weight"].T


def _rotate(x: Tensor, architecture: Architecture) -> Tensor:
    """Rotary positions on the first rotary_pct of each head of ``x[B, S, n, D]``; the rest passes."""
    rotated = int(architecture.head_size * architecture.rotary_pct)
    frequencies = 1.0 / architecture.rotary_base ** (torch.arange(0, rotated, 2).float() / rotated)
    angles = torch.arange(x.shape[1]).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)[:, None, :]
    turned, passed = x[..., :rotated], x[..., rotated:]
    left, right = turned[..., : rotated // 2], turned[..., rotated // 2 :]
    turned = turned * angles.cos().to(x.dtype) + torch.cat([-right, left], dim=-1) * angles.sin().to(x.dtype)
    return torch.cat([turned, passed], dim=-1)


def _mlp(rank: Rank, architecture: Architecture, x: Tensor) -> Tensor:
    """This rank's share of the MLP: a partial sum, without the output bias."""
    inner = F.linear(x, rank["mlp.linear1.weight"], rank.get("mlp.linear1.bias"))
    activation = _ACTIVATIONS["gelu tanh" if architecture.tanh_gelu else architecture.activation]
    if architecture.gated:
        up, gate = inner.chunk(2, dim=-1)
        inner = activation(gate) * up
    else:
        inner = activation(inner)
    return inner @ rank["mlp.linear2.weight"].T


def _gelu_tanh(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "swiglu": F.silu,
    "geglu": F.gelu,
    "reglu": F.relu,
    "glu": torch.sigmoid,
    "bilinear": lambda x: x,
}
