"""NeoX <-> Hugging Face's Llama: RMS norm, gated MLP, grouped or plain attention, sequential residual.

Shapes: H hidden_size, N query heads, K key/value heads, D head size, M MLP width; C columns (H, or none for a bias).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture, rope_faults

# NeoX's gated activation -> the function that Hugging Face applies to the gate
_GATES = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "glu": "sigmoid", "bilinear": "linear"}
_NEOX_ACTIVATIONS = {theirs: ours for ours, theirs in _GATES.items()} | {"swish": "swiglu", "gelu_python": "geglu"}

_RENAMED = {
    "attention.dense": "self_attn.o_proj",
    "mlp.linear2": "mlp.down_proj",
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class Llama:
    """See `registry.Family`."""

    model_type = "llama"
    buffers: tuple[str, ...] = (".rotary_emb.inv_freq",)
    residual_outputs: tuple[str, ...] = ("self_attn.o_proj.weight", "mlp.down_proj.weight")

    def faults(self, architecture: Architecture) -> list[str]:
        a = architecture
        faults = []
        if not a.gated:
            faults.append(f"activation: {a.activation!r}: with rmsnorm only gated MLPs can be represented")
        if a.parallel_residual:
            faults.append("gpt_j_residual: true: with rmsnorm a parallel residual cannot be represented")
        if a.rotary_pct != 1:
            faults.append(f"rotary_pct: {a.rotary_pct}: with rmsnorm only 1.0 can be represented")
        return faults

    def config(self, architecture: Architecture) -> dict[str, Any]:
        a = architecture
        return {
            "architectures": ["LlamaForCausalLM"],
            "hidden_act": _GATES[a.activation],
            "num_key_value_heads": a.num_kv_heads,
            "head_dim": a.head_size,
            "rms_norm_eps": a.norm_epsilon,
            "mlp_bias": a.mlp_bias,
            "rope_theta": a.rotary_base,  # transformers 4 reads this and ignores rope_parameters
            "rope_parameters": {"rope_type": "default", "rope_theta": a.rotary_base},
        }

    def architecture(self, config: Any) -> tuple[Architecture, list[str]]:
        faults = rope_faults(config.rope_parameters)
        activation = _NEOX_ACTIVATIONS.get(config.hidden_act)
        if activation is None:
            faults.append(f"hidden_act {config.hidden_act!r}: NeoX has no MLP with such a gate")
        if config.head_dim * config.num_attention_heads != config.hidden_size:
            faults.append(
                f"head_dim {config.head_dim}: NeoX's heads have hidden_size / num_attention_heads = "
                f"{config.hidden_size / config.num_attention_heads:g} numbers"
            )
        found = Architecture(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            mlp_width=config.intermediate_size,
            padded_vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            norm="rmsnorm",
            norm_epsilon=config.rms_norm_eps,
            activation=activation or "",
            tanh_gelu=False,
            parallel_residual=False,
            tied_norms=False,
            tied_embeddings=config.tie_word_embeddings,
            attention_bias=config.attention_bias,
            mlp_bias=config.mlp_bias,
            rotary_pct=1.0,
            rotary_base=config.rope_parameters["rope_theta"],
            attention_dropout=config.attention_dropout or 0.0,
            init_method_std=config.initializer_range,
        )
        return found, faults

    def names(self, layer: int, architecture: Architecture) -> list[str]:
        expected = layout.parameters(architecture)[layer]
        empty = {name: torch.empty(shape, device="meta") for name, shape in expected.items()}
        return list(self.export(layer, empty, architecture))

    def export(self, layer: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        block = layout.block_of(layer, architecture)
        if block is None:
            return {self._name(layer, architecture): tensor for tensor in tensors.values()}
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            stem, _, kind = name.rpartition(".")
            if stem == "attention.query_key_value":
                parts = _split_heads(tensor, architecture)
                found |= {f"self_attn.{p}.{kind}": part for p, part in zip(_PROJECTIONS, parts, strict=True)}
            elif stem == "mlp.linear1":
                up, gate = tensor.chunk(2)
                found |= {f"mlp.gate_proj.{kind}": gate, f"mlp.up_proj.{kind}": up}
            else:
                found[f"{_RENAMED[stem]}.{'weight' if kind == 'scale' else kind}"] = tensor
        return {f"model.layers.{block}.{name}": tensor for name, tensor in found.items()}

    def load(self, layer: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        block = layout.block_of(layer, architecture)
        loaded: dict[str, Tensor] = {}
        for name in layout.parameters(architecture)[layer]:
            stem, _, kind = name.rpartition(".")
            if block is None:
                loaded[name] = tensors[self._name(layer, architecture)]
                continue
            prefix = f"model.layers.{block}"
            if stem == "attention.query_key_value":
                parts = [tensors[f"{prefix}.self_attn.{projection}.{kind}"] for projection in _PROJECTIONS]
                loaded[name] = _join_heads(parts, architecture)
            elif stem == "mlp.linear1":
                up, gate = (tensors[f"{prefix}.mlp.{part}_proj.{kind}"] for part in ("up", "gate"))
                loaded[name] = torch.cat([up, gate])
            else:
                loaded[name] = tensors[f"{prefix}.{_RENAMED[stem]}.{'weight' if kind == 'scale' else kind}"]
        return loaded

    def _name(self, layer: int, architecture: Architecture) -> str:
        if layer == layout.EMBEDDING:
            return "model.embed_tokens.weight"
        return "model.norm.weight" if layer == layout.norm_layer(architecture) else "lm_head.weight"


def _split_heads(whole: Tensor, architecture: Architecture) -> tuple[Tensor, ...]:
    """NeoX's query_key_value[(N + 2K) D, C] -> queries[N D, C], keys[K D, C], values[K D, C].

    Grouped attention is stored as [queries; keys; values], plain attention as [query; key; value] of each head in
    turn: taking the one for the other gives a model that speaks gibberish.
    """
    if architecture.grouped:
        kv_width = architecture.num_kv_heads * architecture.head_size
        return whole.split([architecture.hidden_size, kv_width, kv_width])
    by_head = whole.unflatten(0, (architecture.num_attention_heads, 3, architecture.head_size))
    return tuple(part.flatten(0, 1) for part in by_head.unbind(1))


def _join_heads(parts: list[Tensor], architecture: Architecture) -> Tensor:
    """Inverse of `_split_heads`."""
    if architecture.grouped:
        return torch.cat(parts)
    heads = (architecture.num_attention_heads, architecture.head_size)
    return torch.stack([part.unflatten(0, heads) for part in parts], dim=1).flatten(0, 2)
