"""The blocks of a transformers model, and what a block gives.

Shapes: B texts, T tokens, H width of the residual stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ifguide.errors import InputError


class Captured:
    """What a block gave in the last forward pass, ``hidden[B, T, H]``, with its graph."""

    hidden: Tensor | None = None


def bare_model(model: Any) -> Any:
    """The transformers model inside a DeepSpeed engine and around adapters of peft."""
    inner = model.module if hasattr(model, "save_checkpoint") else model
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def find_blocks(model: Any) -> tuple[torch.nn.Module, torch.nn.ModuleList] | None:
    """The module that holds the blocks, and the blocks in order; None where no list has as many parts as the
    configuration names layers."""
    model = bare_model(model)
    count = model.config.get_text_config().num_hidden_layers
    for owner in model.base_model.modules():
        for part in owner.children():
            if isinstance(part, torch.nn.ModuleList) and len(part) == count:
                return owner, part
    return None


def blocks_of(model: Any) -> torch.nn.ModuleList:
    """The blocks, in order.

    Raises:
        InputError: they are not found.
    """
    found = find_blocks(model)
    if found is None:
        model = bare_model(model)
        count = model.config.get_text_config().num_hidden_layers
        raise InputError(
            f"model {model.name_or_path}: its {count} blocks are not found; this architecture is not known"
        )
    return found[1]


def stream_of(output: Any) -> Tensor:
    """The hidden states in what a block or an attention returns, alone or first of several."""
    return output[0] if isinstance(output, tuple) else output


@contextlib.contextmanager
def captured(model: Any, layer: int | None) -> Iterator[Captured]:
    """Keep the raw output of block ``layer`` (from 1) in the forward passes of the block; None keeps nothing.

    transformers' own ``hidden_states`` are not it for the last block: they end with the final norm's output.
    """
    found = Captured()
    if layer is None:
        yield found
        return

    def keep(module: Any, inputs: Any, output: Any) -> None:
        found.hidden = stream_of(output)

    handle = blocks_of(model)[layer - 1].register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
