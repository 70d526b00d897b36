"""Micro-batches through the stages of a DeepSpeed pipeline, forward alone or back too, and never a step.

``eval_batch`` and ``train_batch`` wait for all replicas and average over them; a replica of ours goes at its own pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def run_forward(engine: Any, texts: Sequence[Tensor]) -> None:
    """The losses of ``texts``, micro-batches of one shape, at the last stage. Under ``no_grad``."""
    from deepspeed.runtime.pipe import schedule

    plan = schedule.InferenceSchedule(micro_batches=len(texts), stages=engine.num_stages, stage_id=engine.stage_id)
    _run(engine, texts, plan)


def run_backward(engine: Any, texts: Sequence[Tensor]) -> None:
    """Add the gradients of the micro-batches' losses to what the parameters hold."""
    from deepspeed.runtime.pipe import schedule

    plan = schedule.TrainSchedule(micro_batches=len(texts), stages=engine.num_stages, stage_id=engine.stage_id)
    known = engine._INSTRUCTION_MAP
    left_out = (schedule.OptimizerStep, schedule.ReduceGrads, schedule.ReduceTiedGrads)
    # of this engine alone: the class keeps its own
    engine._INSTRUCTION_MAP = {**known, **dict.fromkeys(left_out, _nothing)}
    try:
        _run(engine, texts, plan)
    finally:
        del engine._INSTRUCTION_MAP


def _run(engine: Any, texts: Sequence[Tensor], plan: Any) -> None:
    engine.reset_activation_shape()
    engine.set_dataiterator(iter([{"text": text} for text in texts]))
    engine.total_loss = None
    engine._compute_loss = True
    engine._exec_schedule(plan)


def _nothing(engine: Any, **named: Any) -> None:
    """In the place of what belongs to a training step."""
