"""What a penalised run logs, through NeoX's own writers: ``lm_loss`` (of clean tokens), ``penalty_ce``,
``penalty_fraction``, ``objective``. All are ratios of sums over micro-batches and data-parallel ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ifguide.penalties.keys import mask_pairs, values_of
from ifguide_patch.run_state import Step, state
from ifguide_patch.training.loss import training_step


def train_step(original: Callable[..., Any]) -> Callable[..., Any]:
    """``megatron.training.train_step`` with the objective switched on and its numbers added."""

    def step(neox_args: Any, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], int]:
        if not mask_pairs(values_of(neox_args)):
            return original(neox_args, *args, **kwargs)
        with training_step(neox_args) as current:
            metrics, skipped = original(neox_args, *args, **kwargs)
        if not current.log:
            return metrics, skipped
        sums = _over_ranks(current)
        if not skipped:
            state.interval = sums if state.interval is None else state.interval + sums
        return {**metrics, **_tensors(sums)}, skipped

    return step


def training_log(original: Callable[..., Any]) -> Callable[..., Any]:
    """``megatron.training.training_log``, whose printed line is a mean over iterations: of ours, the ratio
    of the interval's sums, so that an iteration without selected tokens does not lower ``penalty_ce``."""

    def log(
        neox_args: Any, timers: Any, loss_dict: dict[str, Any], total_loss_dict: dict[str, Any],
        learning_rate: float, iteration: int, loss_scale: Any, report_memory_flag: bool, skipped_iter: int,
        *args: Any, **kwargs: Any,
    ) -> Any:  # fmt: skip
        if state.interval is not None and iteration % neox_args.log_interval == 0:
            skipped = total_loss_dict.get("skipped iterations", 0) + skipped_iter
            divisor = max(1, neox_args.log_interval - skipped)
            total_loss_dict.pop("penalty_ce", None)
            from ifguide.objectives.penalised import reported

            for key, value in reported(state.interval).items():
                # NeoX adds this iteration's value to the total, then divides the total by the iterations
                added = float(loss_dict[key]) if key in loss_dict and not skipped_iter else 0.0
                total_loss_dict[key] = value * divisor - added
            state.interval = None
        return original(
            neox_args, timers, loss_dict, total_loss_dict, learning_rate, iteration, loss_scale, report_memory_flag,
            skipped_iter, *args, **kwargs,
        )  # fmt: skip

    return log


def _over_ranks(step: Step) -> Any:
    """float64[5] summed over data-parallel ranks, the same on every rank.

    Only the ranks that compute the loss have sums (the last pipeline stage); of a tensor-parallel group,
    whose members all computed the same, the first one counts.
    """
    import torch
    from megatron import mpu

    sums = step.sums
    if sums is None or mpu.get_model_parallel_rank() != 0:
        sums = torch.zeros(5, dtype=torch.float64, device=torch.cuda.current_device())
    torch.distributed.all_reduce(sums)
    return sums


def _tensors(sums: Any) -> dict[str, Any]:
    """NeoX's log wants tensors."""
    import torch

    from ifguide.objectives.penalised import reported

    return {name: torch.tensor(value) for name, value in reported(sums).items()}
