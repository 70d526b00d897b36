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
    """

    model_type: str
    buffers: tuple[str, ...]

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
