"""The one place where the weights of a Hugging Face folder are loaded."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from ifguide.errors import InputError, first_line
from ifguide.system.quiet import no_loading_bar

# names of missing weights that a message lists
_NAMED = 3


def load_causal_model(
    folder: str | os.PathLike, dtype: torch.dtype, what: str, *, attention: str | None = None, device: str = "cpu"
) -> Any:
    """The causal language model of a local folder; nothing is fetched from anywhere.

    Args:
        what: its role, which begins a message.
        attention: a name that transformers knows (None: its choice).
        device: where it shall lie. Each weight goes straight there: a copy of the whole model in every process of a
            machine may not fit its memory.

    Raises:
        InputError: it cannot be loaded, or weights are missing.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if _goes_straight_to(device):
        options["device_map"] = {"": device}
    model = load_pretrained(AutoModelForCausalLM, folder, dtype, what, local_files_only=True, **options)
    return model.to(device)


def _goes_straight_to(device: str) -> bool:
    """Whether transformers can put weights there itself, for which it needs accelerate."""
    return device != "cpu" and importlib.util.find_spec("accelerate") is not None


def load_pretrained(kind: Any, where: str | os.PathLike, dtype: torch.dtype, what: str, **options: Any) -> Any:
    """``kind.from_pretrained(where)``, with every weight from there.

    Args:
        kind: a class of transformers.
        where: a folder, or a name on the hub if ``options`` allow that.
        what: its role, which begins a message.

    Raises:
        InputError: it cannot be loaded, or weights are missing, which transformers would fill with random numbers.
    """
    try:
        with no_loading_bar():
            model, info = kind.from_pretrained(where, dtype=dtype, output_loading_info=True, **options)
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        raise InputError(f"{what} {os.fspath(where)} cannot be loaded: {first_line(error)}") from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        raise InputError(f"{what} {os.fspath(where)} lacks the weights {', '.join(names[:_NAMED])}{more}")
    return model
