"""Which of the ways that give the same scores a run takes: the fastest here.

A way counts only if it passes the gate of `step_search` against the exact one. What is faster depends on device, shape
and arithmetic, so a few batches of the sample are timed. Times differ from run to run: the choice is made once and
recorded, and whoever joins or resumes the run takes what is recorded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ifguide.influence.batches import Batch
from ifguide.influence.options import Method
from ifguide.system.progress import compact

# the exact way is taken unless another is faster by more than clocks differ
_FASTER = 0.95
_BATCHES, _TURNS = 3, 2


@dataclass(frozen=True)
class Way:
    """A method that passes the gate.

    Attributes:
        method: settled.
        make: builds its pass, which is let go after it was timed.
        correlation, jaccard: with the exact one, worst direction; 1 for that one itself.
    """

    method: Method
    make: Callable[[], Any]
    correlation: float = 1.0
    jaccard: float = 1.0


def choose_fastest(
    ways: Sequence[Way], batches: Sequence[Batch], device: torch.device, quiet: bool
) -> tuple[Method, list[dict[str, Any]]]:
    """Time ``ways``, of which the first is the exact one, and say so on stderr.

    Returns:
        The method that is taken, and what was found of each way: ``method``, ``seconds`` of the timed batches,
        ``tokens_per_second``, ``correlation``, ``jaccard``.
    """
    chosen = [batch.to(device) for batch in _spread(batches)]
    tokens = sum(int(batch.labelled.sum()) for batch in chosen)
    seconds = [seconds_of(way, chosen, device) for way in ways]
    best = min(range(len(ways)), key=seconds.__getitem__)
    if seconds[best] > _FASTER * seconds[0]:
        best = 0
    table: list[dict[str, Any]] = [
        {
            "method": way.method.record(),
            "seconds": took,
            "tokens_per_second": tokens / max(took, 1e-9),
            "correlation": way.correlation,
            "jaccard": way.jaccard,
        }
        for way, took in zip(ways, seconds, strict=True)
    ]
    if not quiet:
        rates = ", ".join(f"{_named(row['method'])} {compact(row['tokens_per_second'])} tokens/s" for row in table)
        sys.stderr.write(f"timed on {tokens} tokens: {rates}; taken: {_named(table[best]['method'])}\n")
    return ways[best].method, table


def seconds_of(way: Way, batches: Sequence[Batch], device: torch.device) -> float:
    """What ``batches`` take that way, scores on the host: the faster of two turns, after one batch that warms up."""
    scoring = way.make()

    def run(some: Sequence[Batch]) -> float:
        started = time.perf_counter()
        for batch in some:
            scoring.scores(batch)[:, batch.labelled].to(torch.float32).cpu()
        return time.perf_counter() - started

    run(batches[:1])
    return min(run(batches) for _ in range(_TURNS))


def _spread(batches: Sequence[Batch]) -> list[Batch]:
    """A few of ``batches``, from the longest windows to the shortest."""
    count = min(_BATCHES, len(batches))
    return [batches[(2 * k + 1) * len(batches) // (2 * count)] for k in range(count)]


def _named(record: dict[str, Any]) -> str:
    name = record["method"]
    if record.get("step") is not None:
        name += f" (step {record['step']:.1e})"
    return f"{name} in TF32" if record.get("tf32") else name
