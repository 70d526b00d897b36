"""The step of a difference: searched on a sample, against forward mode.

Too large a step leaves the linear range, too small a one drowns in rounding, and where the best lies depends on the
model. A step counts by its worst direction.

Shapes: K directions, N labelled positions of the sample.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ifguide.influence.batches import Batch, group_by_length
from ifguide.influence.direction import Direction
from ifguide.influence.passes.difference import DifferencePass
from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.windows import Cutting, Windows, sample
from ifguide.models.precision import tf32_matmuls
from ifguide.models.tracked import ScoredModel
from ifguide.system.progress import Progress

STEPS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
# what a step must reach: correlation of the scores, and Jaccard overlap of their top 1 %
GATE = (0.9999, 0.98)
ONE_SIDED_GATE = (0.999, 0.95)
TOP_SHARE = 0.01
# 200 tokens at the top: the gate lets two of them differ
SAMPLE_TOKENS = 20_000


@dataclass(frozen=True)
class StepSearch:
    """What was found.

    Attributes:
        step: |εv| / |θ|, or None where no step reaches the gate.
        correlation: of the best step, worst direction.
        jaccard: likewise.
        table: every step tried, largest first: ``step``, and ``correlation`` and ``jaccard`` as lists over directions.
    """

    step: float | None
    correlation: float
    jaccard: float
    table: list[dict[str, Any]]


def sample_batches(
    windows: Windows | Cutting, batch_tokens: int, seed: int = 0, tokens: int = SAMPLE_TOKENS
) -> list[Batch]:
    """Batches of a seeded sample of whole windows that scores at least ``tokens`` tokens, or all there are."""
    chosen = sample(windows, tokens, seed)
    return [chosen.batch(group) for group in group_by_length(chosen.lengths, batch_tokens)]


def search_step(
    model: ScoredModel,
    directions: Sequence[Direction | dict[str, LowRank]],
    batches: Sequence[Batch],
    one_sided: bool = False,
    quiet: bool = True,
    tf32: bool = False,
) -> StepSearch:
    """Try `STEPS`, then the steps halfway to the best one's neighbours. The same input gives the same step.

    Args:
        tf32: the difference multiplies in TF32; what it is compared with does not.

    Raises:
        InputError: the model's precision is too low for a difference.
    """
    gate = ONE_SIDED_GATE if one_sided else GATE
    context = tf32_matmuls if tf32 else contextlib.nullcontext
    batches = [batch.to(model.device) for batch in batches]
    run = partial(_scores_on, batches=batches, device=model.device)
    tokens = sum(int(batch.labelled.sum()) for batch in batches)
    with Progress((len(STEPS) + 3) * tokens, "tokens", "search the step", quiet=quiet) as progress:
        exact = run(ForwardModePass(model, directions), on_tokens=progress.update)

        def attempt(step: float) -> dict[str, Any]:
            with context():
                found = run(DifferencePass(model, directions, step, one_sided), on_tokens=progress.update)
            return {"step": step, **_compared(found, exact)}

        table = [attempt(step) for step in STEPS]
        place = table.index(_best(table, gate))
        neighbours = [STEPS[i] for i in (place - 1, place + 1) if 0 <= i < len(STEPS)]
        table += [attempt(float(f"{math.sqrt(STEPS[place] * other):.2g}")) for other in neighbours]
    best = _best(table, gate)
    worst = _worst(best)
    return StepSearch(
        step=best["step"] if reached(worst, gate) else None,
        correlation=worst[0],
        jaccard=worst[1],
        table=sorted(table, key=lambda row: -row["step"]),
    )


def agreement(scoring: Any, exact: Any, batches: Sequence[Batch], device: torch.device) -> tuple[float, float]:
    """Correlation and overlap of the top 1 % of the scores of two passes on ``batches``, worst direction."""
    return _worst(_compared(_scores_on(scoring, batches, device), _scores_on(exact, batches, device)))


def reached(found: tuple[float, float], gate: tuple[float, float]) -> bool:
    """Whether an `agreement` is as good as ``gate`` asks for."""
    return found[0] >= gate[0] and found[1] >= gate[1]


def _scores_on(
    scoring: Any, batches: Sequence[Batch], device: torch.device, on_tokens: Callable[[int], object] | None = None
) -> Tensor:
    """Scores [K, N] in float64, on the host, of one batch after the other."""
    pieces = []
    for batch in batches:
        batch = batch.to(device)
        pieces.append(scoring.scores(batch)[:, batch.labelled].to("cpu", torch.float64))
        if on_tokens:
            on_tokens(pieces[-1].shape[1])
    return torch.cat(pieces, dim=1)


def _compared(found: Tensor, exact: Tensor) -> dict[str, list[float]]:
    """``correlation`` and ``jaccard`` of the scores [K, N], for each direction."""
    pairs = list(zip(found, exact, strict=True))
    return {
        "correlation": [correlation(a, b) for a, b in pairs],
        "jaccard": [top_overlap(a, b) for a, b in pairs],
    }


def _worst(row: dict[str, Any]) -> tuple[float, float]:
    return min(row["correlation"]), min(row["jaccard"])


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of ``a``[N] and ``b``[N]; 0 where it is not defined (a constant, or a number that is not finite)."""
    a, b = a - a.mean(), b - b.mean()
    value = float(a @ b / (a.norm() * b.norm()))
    return value if math.isfinite(value) else 0.0


def top_overlap(a: Tensor, b: Tensor, share: float = TOP_SHARE) -> float:
    """Jaccard overlap of the places of the largest ``share`` of ``a``[N] and of ``b``[N]; ties go to earlier places."""
    count = max(1, round(share * len(a)))
    tops = [set(torch.sort(x, descending=True, stable=True).indices[:count].tolist()) for x in (a, b)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def _best(table: list[dict[str, Any]], gate: tuple[float, float]) -> dict[str, Any]:
    """The row of the best step: one that reaches the gate, then by overlap, then by correlation."""
    return max(table, key=lambda row: (reached(_worst(row), gate), *reversed(_worst(row))))
