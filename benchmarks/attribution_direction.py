"""Seconds of the direction: `compute_directions` on all queries against kronfluence's query phase.

kronfluence is asked in three ways, each timed on a few batches and scaled by padded tokens to all queries:

    tight        one summed gradient; batches of 8 of similar length: the least work that it can be given
    padded       one summed gradient; batches of 8 padded to 256 tokens, as IF-Guide's own code feeds them
    per query    a preconditioned gradient for each query, its default; batches of 4 of similar length
"""

from __future__ import annotations

from typing import Any

import torch
from attribution_case import random_batch, random_queries
from attribution_kronfluence import Kronfluence, published_batches, spread, tight_batches
from attribution_speed import Setting
from common import median_time

from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import Direction, compute_directions, mean_gradient, precondition
from ifguide.influence.options import Damping
from ifguide.models.tracked import ScoredModel

_PUBLISHED_LENGTH, _PUBLISHED_BATCH, _PER_QUERY_BATCH = 256, 8, 4
# tokens of a batch of `ifguide score` unless told: 16 windows
_BATCH_WINDOWS = 16
# each repeat of ours goes over all queries
_REPEATS = 3


def direction_times(
    setting: Setting, model: ScoredModel, factors: Factors, theirs: Kronfluence, count: int
) -> tuple[Direction, dict[str, Any]]:
    """The direction of ``count`` queries, half of them toxic, and what it costs both."""
    queries = random_queries(setting.shape, count)
    toxic, safe = queries[: count // 2], queries[count // 2 :]
    batch_tokens = _BATCH_WINDOWS * setting.shape.window
    direction: Direction = {}

    def ours() -> None:
        direction.update(compute_directions(model, factors, [(toxic, safe)], Damping(), batch_tokens)[0])
        setting.synchronize()

    same = _largest_difference(setting, model, factors, theirs)  # warms up both
    seconds = median_time(ours, min(setting.repeats, _REPEATS), warmup=0).median
    train = random_batch(setting.shape, 1, setting.device)
    whole = {
        "tight": tight_batches(queries, _PUBLISHED_BATCH),
        "padded": published_batches(queries, _PUBLISHED_BATCH, min(_PUBLISHED_LENGTH, setting.shape.window)),
        "per query": tight_batches(queries, _PER_QUERY_BATCH),
    }
    found = {}
    for way, batches in whole.items():
        phase = theirs.query_phase(spread(batches, setting.repeats + 1), train, aggregate=way != "per query")
        scaled = phase.scaled(sum(batch.inputs.numel() for batch in batches))
        found[way] = {
            "seconds_scaled_to_all_queries": round(scaled, 3),
            "queries_timed": len(phase.seconds) * len(batches[0].inputs),
            "padded_tokens_of_all_queries": sum(batch.inputs.numel() for batch in batches),
            "seconds_once": round(phase.once, 3),
            "times_ours": round(scaled / seconds, 2),
        }
    return direction, {
        "queries": count,
        "tokens": sum(len(query.inputs) for query in queries),
        "ifguide_seconds": {"median": round(seconds, 3), "repeats": min(setting.repeats, _REPEATS)},
        "kronfluence": found,
        "largest_difference": same,
    }


def _largest_difference(setting: Setting, model: ScoredModel, factors: Factors, theirs: Kronfluence) -> float:
    """Between our direction and kronfluence's for a few queries, as a share of the largest entry."""
    queries = random_queries(setting.shape, 8)
    gradient = mean_gradient(model, queries, _BATCH_WINDOWS * setting.shape.window)
    # kronfluence sums, we average
    ours = precondition({name: len(queries) * matrix for name, matrix in gradient.items()}, factors, Damping())
    phase = theirs.query_phase(tight_batches(queries, 4), random_batch(setting.shape, 1, setting.device))
    worst = 0.0
    for name, matrix in ours.items():
        other = phase.direction[name].to(matrix.device)
        worst = max(worst, float((other - matrix).abs().max() / matrix.abs().max()))
    return float(f"{worst:.3g}")


def three_more(direction: Direction) -> list[Direction]:
    """``direction`` and three random ones that are as long in every layer."""
    found = [direction]
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        found.append({name: _as_long(matrix, draw) for name, matrix in direction.items()})
    return found


def _as_long(matrix: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    noise = torch.randn(matrix.shape, generator=draw).to(matrix.device)
    return noise * (matrix.norm() / noise.norm())
