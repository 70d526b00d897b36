"""The Hugging Face architectures that NeoX's models map to, and what a map between the two consists of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture
from ifguide.architectures.gpt_neox import GPTNeoX
from ifguide.architectures.llama import Llama
from ifguide.errors import InputError


class Family(Protocol):
    """One Hugging Face architecture.

    Attributes:
        model_type: its name in ``config.json``.
        buffers: endings of names that folders may hold beside the parameters; they follow from the configuration.
        residual_outputs: endings of the names of the matrices that write into the residual stream, which NeoX
            initialises by ``output_layer_init_method``.
    """

    model_type: str
    buffers: tuple[str, ...]
    residual_outputs: tuple[str, ...]

    def faults(self, architecture: Architecture) -> list[str]:
        """Why this family cannot represent ``architecture``, one line each; [] if it can, exactly."""

    def config(self, architecture: Architecture) -> dict[str, Any]:
        """The entries of ``config.json`` that are particular to this family."""

    def architecture(self, config: Any) -> tuple[Architecture, list[str]]:
        """The architecture that a transformers configuration describes, and why NeoX cannot run it (one line each)."""

    def names(self, layer: int, architecture: Architecture) -> list[str]:
        """Hugging Face names of pipeline layer ``layer``'s tensors."""

    def export(self, layer: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        """Whole NeoX tensors of pipeline layer ``layer`` -> Hugging Face name and tensor."""

    def load(self, layer: int, tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        """Inverse of `export`: the tensors of `names` -> whole NeoX tensors."""


def family_of(architecture: Architecture) -> Family:
    """The family for ``architecture``'s kind of norm, which nothing else can stand in for.

    Raises:
        InputError: neither has it.
    """
    families: dict[str, type[Family]] = {"layernorm": GPTNeoX, "rmsnorm": Llama}
    if architecture.norm not in families:
        raise InputError(f"norm: {architecture.norm!r}: only {' and '.join(families)} can be represented")
    return families[architecture.norm]()


def family_named(model_type: str) -> Family:
    """The family of a ``config.json``'s model_type.

    Raises:
        InputError: another one.
    """
    families: tuple[Family, ...] = (GPTNeoX(), Llama())
    found = next((family for family in families if family.model_type == model_type), None)
    if found is None:
        known = " and ".join(family.model_type for family in families)
        raise InputError(f"model_type {model_type!r} is not supported; NeoX checkpoints can be made of {known} models")
    return found


def huggingface_shapes(family: Family, architecture: Architecture) -> layout.Shapes:
    """Hugging Face name -> shape of every tensor of ``architecture``, without any weights."""
    shapes: layout.Shapes = {}
    for layer, expected in layout.parameters(architecture).items():
        empty = {name: torch.empty(shape, device="meta") for name, shape in expected.items()}
        shapes |= {name: tuple(tensor.shape) for name, tensor in family.export(layer, empty, architecture).items()}
    return shapes


def huggingface_config(
    family: Family, architecture: Architecture, dtype: torch.dtype, special: Mapping[str, Any]
) -> dict[str, Any]:
    """``config.json``, understood alike by transformers 4 and 5.

    Args:
        special: ``bos_token_id``, ``eos_token_id``, which generation stops at, and others. The two are said even if
            None: the library's own defaults are ids of other tokenizers.
    """
    a = architecture
    return {
        "model_type": family.model_type,
        "vocab_size": a.padded_vocab_size,
        "hidden_size": a.hidden_size,
        "num_hidden_layers": a.num_layers,
        "num_attention_heads": a.num_attention_heads,
        "intermediate_size": a.mlp_width,
        "max_position_embeddings": a.max_position_embeddings,
        "tie_word_embeddings": a.tied_embeddings,
        "attention_bias": a.attention_bias,
        "attention_dropout": a.attention_dropout,
        "initializer_range": a.init_method_std,
        **{"bos_token_id": None, "eos_token_id": None, **special},
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        **family.config(architecture),
    }
