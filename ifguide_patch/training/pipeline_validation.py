"""A fault of GPT-NeoX that stops every validation under pipeline parallelism, mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def forward_step(original: Callable[..., Any]) -> Callable[..., Any]:
    """``megatron.training.forward_step`` as ``evaluate`` expects it: (loss, metrics), pipelines included.

    The pipeline branch returns what ``eval_batch`` does, the loss alone. Where it returns anything else
    (logits were asked for, or NeoX has mended it) this changes nothing.
    """

    def step(
        data_iterator: Any, model: Any, neox_args: Any, timers: Any, return_logits: bool = False, **kwargs: Any
    ) -> Any:
        result = original(
            data_iterator=data_iterator, model=model, neox_args=neox_args, timers=timers, return_logits=return_logits,
            **kwargs,
        )  # fmt: skip
        return (result, {}) if neox_args.is_pipe_parallel and not isinstance(result, tuple) else result

    return step
