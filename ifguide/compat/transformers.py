"""Attention functions by name, and other parts of transformers that are not among its documented interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

_FUSED = "sdpa"


def register_attention(name: str, function: Callable[..., Any]) -> None:
    """Make ``attn_implementation=name`` known, with the fused kernel's masks.

    Such a mask is None where it would only say "causal", else bool[B, 1, T, T] whose first dimension is a view.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, AttentionMaskInterface()[_FUSED])


@cache
def fused_attention() -> Callable[..., Any]:
    """The fused kernel as transformers calls it: (module, query, key, value, mask, dropout, scaling, ...)."""
    from transformers import AttentionInterface

    return AttentionInterface()[_FUSED]


@contextlib.contextmanager
def attention_of(config: Any, implementation: str) -> Iterator[None]:
    """Let the model of ``config`` use this attention (a name that transformers knows) for a while."""
    before = config._attn_implementation
    # the public `set_attn_implementation` walks over the whole model, and this is entered for every batch
    config._attn_implementation = implementation
    try:
        yield
    finally:
        config._attn_implementation = before


def transposed_linear() -> Any:
    """GPT-2's linear layer, ``weight``[I, O] and ``bias``[O]."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def commit_of(name: str) -> str | None:
    """The revision of a model on the hub that lies in the local cache, where it was just loaded from; else None.

    Configurations no longer remember it; the cache names each snapshot's folder after it.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None
