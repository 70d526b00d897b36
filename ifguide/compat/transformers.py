"""Attention functions by name, and other parts of transformers that are not among its documented interface."""

from __future__ import annotations

import contextlib
import importlib
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


def causal_class(model_type: str) -> str | None:
    """Name of the class of a causal language model of this ``model_type``, told without loading it; None if none is."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)


def attention_is_exchangeable(class_name: str) -> bool:
    """Whether a model's class asks transformers' registry which attention to run, where ours is registered."""
    import transformers

    found = getattr(transformers, class_name, None)
    return found is not None and hasattr(importlib.import_module(found.__module__), "ALL_ATTENTION_FUNCTIONS")


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
