"""One batch of the real pass, timed: the only thing that a plan needs the weights for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ifguide.influence.batches import Batch
from ifguide.influence.options import Method
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.passes.method import AnyDirection, make_pass
from ifguide.influence.planning import work as plan_work
from ifguide.influence.planning.shape import Shape
from ifguide.models.tracked import ScoredModel

_REPEATS = 3
_EIGEN_SIDE = 512


@dataclass(frozen=True)
class Measured:
    """What a batch took here.

    Attributes:
        rows, columns: of the batch.
        seconds: median of a few runs.
        tokens_per_second: scored ones.
        operations_per_second: by the count of `plan_work.scoring`.
        eigen_seconds_per_cube: of an eigendecomposition in float64, over the cube of its side.
    """

    rows: int
    columns: int
    seconds: float
    tokens_per_second: float
    operations_per_second: float
    eigen_seconds_per_cube: float


def time_batch(model: ScoredModel, shape: Shape, batch: Batch, method: Method, directions: int) -> Measured:
    """Time ``batch`` along random directions.

    Args:
        method: settled; a difference has a step.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = [_random_direction(model, method.rank, generator) for _ in range(directions)]
    scorer = make_pass(model, drawn, method)
    batch = batch.to(model.device)
    seconds = _median(lambda: _score(scorer.scores, batch), model.device)
    labelled = int(batch.labelled.sum())
    rows, columns = batch.inputs.shape
    work = plan_work.of_batch(labelled, rows, columns)
    square = torch.randn(_EIGEN_SIDE, _EIGEN_SIDE, generator=generator, dtype=torch.float64).to(model.device)
    eigen = _median(lambda: torch.linalg.eigh(square @ square.T), model.device)
    return Measured(
        rows=rows,
        columns=columns,
        seconds=seconds,
        tokens_per_second=labelled / seconds,
        operations_per_second=plan_work.scoring(shape, work, method, directions) / seconds,
        eigen_seconds_per_cube=eigen / _EIGEN_SIDE**3,
    )


def _random_direction(model: ScoredModel, rank: int | None, generator: torch.Generator) -> AnyDirection:
    """What a direction looks like: any numbers take the same time."""
    shapes = {name: model.matrix_shape(name) for name in model.tracked}
    if rank is None:
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    low = {}
    for name, (outputs, inputs) in shapes.items():
        own = min(rank, outputs, inputs)
        low[name] = LowRank(
            torch.randn(outputs, own, generator=generator), torch.randn(inputs, own, generator=generator)
        )
    return low


def _score(scores: Callable[[Batch], Tensor], batch: Batch) -> None:
    """As the job does it: the numbers end on the host."""
    scores(batch)[:, batch.labelled].to(torch.float32).cpu()


def _median(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of ``run``: median of a few, after one that warms up."""
    found = []
    for turn in range(1 + _REPEATS):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            found.append(time.perf_counter() - started)
    return statistics.median(found)
