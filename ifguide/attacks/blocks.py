"""Where a causal model's blocks lie, and what writes to its residual stream.

    x_0 = embedding(ids);  x_l = x_{l-1} + attention_l + mlp_l          every term is the output of a matrix

Shapes: D width, L blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ifguide.errors import InputError
from ifguide.models.blocks import blocks_of

# of the matrices that end attention and MLP, in the architectures of transformers
_WRITERS = {"dense", "dense_4h_to_h", "o_proj", "down_proj", "c_proj", "out_proj", "fc2", "fc_out", "wo"}
# embeddings that are no tokens': of positions
_POSITIONS = {"wpe", "embed_positions"}


def writers_of(model: Any) -> list[Any]:
    """The matrices at the ends of attention and MLP of every block.

    Raises:
        InputError: a block that has none of a known name.
    """
    found = []
    for number, block in enumerate(blocks_of(model), start=1):
        own = [
            part for name, part in block.named_modules()
            if name.rpartition(".")[2] in _WRITERS and isinstance(getattr(part, "weight", None), Tensor)
        ]  # fmt: skip
        if not own:
            raise InputError(f"model {model.name_or_path}: block {number} has no known matrix that writes its output")
        found += own
    return found


def embeddings_of(model: Any) -> list[Any]:
    """The embedding of tokens, and that of positions where it is learned."""
    positions = [part for name, part in model.base_model.named_modules() if name.rpartition(".")[2] in _POSITIONS]
    return [model.get_input_embeddings(), *(part for part in positions if isinstance(part, nn.Embedding))]


def untie(model: Any) -> None:
    """Give the head a matrix of its own where it shares the embedding's: the one can then be changed without the
    other."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


@contextmanager
def changed_outputs(model: Any, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Inside, what block l (from 1) gives is ``change(l, x_l)``; a change of shapes is none."""

    def hook(number: int) -> Callable:
        def changed(module: nn.Module, inputs: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return change(number, output)
            return (change(number, output[0]), *output[1:])

        return changed

    handles = [block.register_forward_hook(hook(number)) for number, block in enumerate(blocks_of(model), start=1)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def states(model: Any, ids: Tensor) -> Tensor:
    """``[B, T, L, D]``: what each block gives, for ``ids[B, T]``; padding on the right changes nothing before it."""
    seen: list[Tensor] = []

    def keep(number: int, state: Tensor) -> Tensor:
        seen.append(state)
        return state

    with changed_outputs(model, keep):
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return torch.stack(seen, dim=2)
