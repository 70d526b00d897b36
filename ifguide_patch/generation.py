"""GPT-NeoX's own ``generate.py``: what stands for hidden tokens is no text, and is never generated.

Likelihoods, which NeoX takes from the same forward pass, are left as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from ifguide_patch.run_state import state
from ifguide_patch.training.batch import find_hidden_token


def stream_tokens(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """``megatron.text_generation_utils.stream_tokens``, which draws every continuation: tells `forward_model`."""

    def stream(neox_args: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        state.undrawn = find_hidden_token(neox_args)
        try:
            yield from original(neox_args, *args, **kwargs)
        finally:
            state.undrawn = None

    return stream


def forward_model(original: Callable[..., Any]) -> Callable[..., Any]:
    """``megatron.text_generation_utils.forward_model``: the hidden token has no chance while a text is drawn."""

    def forward(model: Any, model_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        logits = original(model, model_inputs, *args, **kwargs)
        # only the last stage of a pipeline has any
        if logits is None or state.undrawn is None:
            return logits
        import torch

        return logits.index_fill(-1, torch.tensor([state.undrawn], device=logits.device), -math.inf)

    return forward
