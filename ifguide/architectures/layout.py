"""How NeoX numbers its layers, names their parameters and splits them over tensor-parallel ranks.

Sizes as in `architecture`; T tensor-parallel ranks. A "whole" tensor is what a single rank (T = 1) would hold.

NeoX is a list of pipeline layers: 0 the embedding, 1 a transposition, 2 to L+1 the blocks, L+2 a transposition,
L+3 the last norm, L+4 the output matrix (absent if tied to the embedding).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ifguide.architectures.architecture import Architecture

EMBEDDING = 0
_FIRST_BLOCK = 2

# earlier revisions of NeoX: their name -> today's
_RENAMED = {"mlp.dense_h_to_4h": "mlp.linear1", "mlp.dense_4h_to_h": "mlp.linear2", "mlp.w2": "mlp.linear2"}
_WHOLE_NAME = re.compile(r"^(?:sequential\.)?(\d+)\.(.+)$")

_ROW_PARALLEL = ("attention.dense.weight", "mlp.linear2.weight")
_ROW_PARALLEL_BIAS = ("attention.dense.bias", "mlp.linear2.bias")

Shapes = dict[str, tuple[int, ...]]


def layer_file(layer: int, rank: int) -> str:
    """File of one pipeline layer's parameters on one tensor-parallel rank (pipe_parallel_size >= 1)."""
    return f"layer_{layer:02d}-model_{rank:02d}-model_states.pt"


def rank_file(rank: int) -> str:
    """File of a rank's state; holds all its parameters if pipe_parallel_size is 0."""
    return f"mp_rank_{rank:02d}_model_states.pt"


def place_of(whole_name: str) -> tuple[int, str] | None:
    """(pipeline layer, name inside of it) of the parameter ``sequential.N.NAME`` or ``N.NAME``, by `todays_name`; None
    of what is no parameter of a NeoX model."""
    match = _WHOLE_NAME.match(whole_name)
    return None if match is None else (int(match[1]), todays_name(match[2]))


def todays_name(name: str) -> str:
    """A layer's parameter as NeoX names it now: earlier revisions had other names for the MLP's layers."""
    stem, _, kind = name.rpartition(".")
    return f"{_RENAMED.get(stem, stem)}.{kind}"


def block_layer(block: int) -> int:
    """Pipeline layer of transformer block ``block``."""
    return _FIRST_BLOCK + block


def block_of(layer: int, architecture: Architecture) -> int | None:
    """Transformer block that pipeline layer ``layer`` is; None for the others."""
    block = layer - _FIRST_BLOCK
    return block if 0 <= block < architecture.num_layers else None


def norm_layer(architecture: Architecture) -> int:
    """Pipeline layer of the last norm."""
    return architecture.num_layers + 3


def output_layer(architecture: Architecture) -> int:
    """Pipeline layer of the output matrix."""
    return architecture.num_layers + 4


def parameters(architecture: Architecture) -> dict[int, Shapes]:
    """Pipeline layer -> name -> shape of the whole tensor, for every parameter of the model."""
    a = architecture
    hidden, width, kv_width = a.hidden_size, a.mlp_width, a.num_kv_heads * a.head_size
    norm: Shapes = {"scale": (hidden,)} if a.norm == "rmsnorm" else {"weight": (hidden,), "bias": (hidden,)}

    def linear(name: str, rows: int, columns: int, bias: bool) -> Shapes:
        return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})

    block: Shapes = {
        **{f"input_layernorm.{name}": shape for name, shape in norm.items()},
        **linear("attention.query_key_value", hidden + 2 * kv_width, hidden, a.attention_bias),
        **linear("attention.dense", hidden, hidden, a.attention_bias),
        **{f"post_attention_layernorm.{name}": shape for name, shape in norm.items()},
        **linear("mlp.linear1", 2 * width if a.gated else width, hidden, a.mlp_bias),
        **linear("mlp.linear2", hidden, width, a.mlp_bias),
    }
    model: dict[int, Shapes] = {EMBEDDING: {"word_embeddings.weight": (a.padded_vocab_size, hidden)}}
    model |= {block_layer(number): dict(block) for number in range(a.num_layers)}
    model[norm_layer(a)] = {f"norm.{name}": shape for name, shape in norm.items()}
    if not a.tied_embeddings:
        model[output_layer(a)] = {"final_linear.weight": (a.padded_vocab_size, hidden)}
    return model


def merge(name: str, shards: Sequence[Tensor], architecture: Architecture) -> Tensor:
    """The whole tensor ``name`` from the shards of all T ranks, in rank order."""
    if len(shards) == 1:
        return shards[0]
    sections = _sections(name, architecture)
    if sections:
        ranks = [shard.split([rows // len(shards) for rows in sections]) for shard in shards]
        return torch.cat([rank[part] for part in range(len(sections)) for rank in ranks])
    if name in _ROW_PARALLEL:
        return torch.cat(list(shards), dim=1)
    if _is_summed(name, architecture):
        total = torch.stack([shard.float() for shard in shards]).sum(0)
        short = total.to(shards[0].dtype)
        # a sum of 16-bit numbers may need more bits; these vectors are small enough to have them
        return short if torch.equal(short.float(), total) else total
    if all(torch.equal(shard, shards[0]) for shard in shards[1:]):
        return shards[0]
    # copies that rounding has driven apart
    return torch.stack([shard.float() for shard in shards]).mean(0).to(shards[0].dtype)


def merge_gradients(name: str, shards: Sequence[Tensor], architecture: Architecture) -> Tensor:
    """As `merge`, of gradients or their second moments: where the ranks' biases add up, each has the whole gradient."""
    return shards[0] if _is_summed(name, architecture) else merge(name, shards, architecture)


def split(name: str, whole: Tensor, ranks: int, architecture: Architecture) -> list[Tensor]:
    """The shards of ``whole`` for ``ranks`` tensor-parallel ranks; each owns its memory. Inverse of `merge`."""
    sections = _sections(name, architecture)
    if sections:
        parts = [section.chunk(ranks) for section in whole.split(sections)]
        return [torch.cat([part[rank] for part in parts]) for rank in range(ranks)]
    if name in _ROW_PARALLEL:
        return [shard.clone(memory_format=torch.contiguous_format) for shard in whole.chunk(ranks, dim=1)]
    if _is_summed(name, architecture):
        # all of it on one rank: a share of it for each would be rounded
        return [whole.clone(), *(torch.zeros_like(whole) for _ in range(ranks - 1))]
    return [whole.clone() for _ in range(ranks)]


def split_faults(architecture: Architecture, ranks: int) -> list[str]:
    """Why NeoX cannot run ``architecture`` on ``ranks`` tensor-parallel ranks, one line each."""
    sizes: Mapping[str, int] = {
        "attention heads": architecture.num_attention_heads,
        "key/value heads": architecture.num_kv_heads,
        "MLP width": architecture.mlp_width,
    }
    return [
        f"--tensor-parallel {ranks} does not divide the {name} ({size})" for name, size in sizes.items() if size % ranks
    ]


def _sections(name: str, architecture: Architecture) -> list[int]:
    """Rows of a whole column-parallel tensor, by the parts of which every rank holds a share; [] for other tensors.

    Queries, keys and values alternate head by head, so that a share is whole heads, unless attention is grouped:
    then each rank holds [queries; keys; values] of its heads. A gated MLP's rank holds its own [up; gate].
    """
    a = architecture
    if name in ("word_embeddings.weight", "final_linear.weight"):
        return [a.padded_vocab_size]
    if name.startswith("attention.query_key_value."):
        kv_width = a.num_kv_heads * a.head_size
        return [a.hidden_size, kv_width, kv_width] if a.grouped else [3 * a.hidden_size]
    if name.startswith("mlp.linear1."):
        return [a.mlp_width, a.mlp_width] if a.gated else [a.mlp_width]
    return []


def _is_summed(name: str, architecture: Architecture) -> bool:
    """Whether the ranks' biases add up. With a parallel residual NeoX adds each rank's bias to its partial sum before
    the all-reduce; otherwise every rank adds its copy after it, and adding the copies would multiply the bias by T."""
    return name in _ROW_PARALLEL_BIAS and architecture.parallel_residual
