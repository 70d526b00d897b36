"""NeoX <-> Hugging Face's GPT-NeoX (Pythia, GPT-NeoX-20B): layer norm, plain MLP, one key/value head per query head.

Both sides keep queries, keys and values alternating head by head, so every whole tensor is only renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture, rope_faults

# NeoX's activation -> Hugging Face's
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "mish": "mish"}
# the tanh approximation of gelu, under any of its names there
_TANH_GELU = ("gelu_fast", "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh")
# Hugging Face's activation -> NeoX's
_NEOX_ACTIVATIONS = {
    **{name: name for name in _ACTIVATIONS},
    "gelu_python": "gelu",
    **dict.fromkeys(_TANH_GELU, "gelu"),
}
_BLOCK = {"mlp.linear1": "mlp.dense_h_to_4h", "mlp.linear2": "mlp.dense_4h_to_h"}


class GPTNeoX:
    """See `registry.Family`."""

    model_type = "gpt_neox"
    buffers: tuple[str, ...] = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
    residual_outputs: tuple[str, ...] = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")

    def faults(self, architecture: Architecture) -> list[str]:
        faults = []
        if architecture.activation not in _ACTIVATIONS:
            kind = "a gated MLP" if architecture.gated else "this activation"
            faults.append(f"activation: {architecture.activation!r}: with layernorm {kind} cannot be represented")
        if architecture.grouped:
            faults.append(
                f"num_kv_heads: {architecture.num_kv_heads}: with layernorm grouped attention cannot be represented"
            )
        if not architecture.mlp_bias:
            faults.append("use_bias_in_mlp: false: NeoX itself computes no plain MLP without biases")
        return faults

    def config(self, architecture: Architecture) -> dict[str, Any]:
        a = architecture
        return {
            "architectures": ["GPTNeoXForCausalLM"],
            "hidden_act": "gelu_fast" if a.tanh_gelu else _ACTIVATIONS[a.activation],
            "layer_norm_eps": a.norm_epsilon,
            "use_parallel_residual": a.parallel_residual,
            "hidden_dropout": a.hidden_dropout,
            # transformers 4 reads these and ignores rope_parameters; their defaults there are 0.25 and 10000
            "rotary_pct": a.rotary_pct,
            "rotary_emb_base": a.rotary_base,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": a.rotary_base,
                "partial_rotary_factor": a.rotary_pct,
            },
        }

    def architecture(self, config: Any) -> tuple[Architecture, list[str]]:
        rope = config.rope_parameters
        faults = rope_faults(rope)
        activation = _NEOX_ACTIVATIONS.get(config.hidden_act)
        if activation is None:
            faults.append(f"hidden_act {config.hidden_act!r}: NeoX has no such activation")
        found = Architecture(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_attention_heads,
            num_kv_heads=config.num_attention_heads,
            mlp_width=config.intermediate_size,
            padded_vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            norm="layernorm",
            norm_epsilon=config.layer_norm_eps,
            activation=activation or "",
            tanh_gelu=config.hidden_act in _TANH_GELU,
            parallel_residual=config.use_parallel_residual,
            tied_norms=False,
            tied_embeddings=config.tie_word_embeddings,
            attention_bias=config.attention_bias,
            mlp_bias=True,
            rotary_pct=rope["partial_rotary_factor"],
            rotary_base=rope["rope_theta"],
            hidden_dropout=config.hidden_dropout,
            attention_dropout=config.attention_dropout,
            init_method_std=config.initializer_range,
        )
        return found, faults

    def names(self, layer: int, architecture: Architecture) -> list[str]:
        return [self._name(layer, name, architecture) for name in layout.parameters(architecture)[layer]]

    def export(self, layer: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        if architecture.tied_norms and layout.block_of(layer, architecture) is not None:
            # the second norm exists in NeoX but is never used: both branches read the first
            tensors = {name: tensors[name.replace("post_attention_layernorm", "input_layernorm")] for name in tensors}
        return {self._name(layer, name, architecture): tensor for name, tensor in tensors.items()}

    def load(self, layer: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        ours = layout.parameters(architecture)[layer]
        return {name: tensors[self._name(layer, name, architecture)] for name in ours}

    def _name(self, layer: int, name: str, architecture: Architecture) -> str:
        block = layout.block_of(layer, architecture)
        stem, _, kind = name.rpartition(".")
        if block is not None:
            return f"gpt_neox.layers.{block}.{_BLOCK.get(stem, stem)}.{kind}"
        if layer == layout.EMBEDDING:
            return "gpt_neox.embed_in.weight"
        if layer == layout.norm_layer(architecture):
            return f"gpt_neox.final_layer_norm.{kind}"
        return "embed_out.weight"
