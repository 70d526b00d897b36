"""The blocks of a transformers model, and what a block gives.

Shapes: B texts, T tokens, H width of the residual stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Captured:
    """What a block gave in the last forward pass, ``hidden[B, T, H]``, with its graph."""

    hidden: Tensor | None = None


def bare_model(model: Any) -> Any:
    """The transformers model inside a DeepSpeed engine and around adapters of peft."""
    inner = model.module if hasattr(model, "save_checkpoint") else model
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def blocks(model: Any) -> torch.nn.ModuleList:
    """The model's blocks, in order."""
    return bare_model(model).base_model.layers


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
        found.hidden = output[0] if isinstance(output, tuple) else output

    handle = blocks(model)[layer - 1].register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
