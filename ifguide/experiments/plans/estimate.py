"""How long tasks will take: by what tasks of their kind took in this folder, else by rates of a plain CPU core."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ifguide.experiments.graph import Task
from ifguide.experiments.stages import Stages

MEASURED, GUESSED = "measured", "guessed"
# seconds that every command takes to start; a training starts two processes
_START = {"model": 14.0, "judge": 8.0, "lambada": 12.0, "tokenizer": 0.5}
_START_ELSE = 5.0
# work a second of two CPU cores: parameters times tokens where a model works, else bytes or tokens
_RATES = {
    "model": 1.2e10, "factors": 1.0e10, "scores": 8.0e9, "judge": 5.0e9, "said": 5.0e9, "lambada": 3.0e10,
    "text": 2.0e5, "tokenizer": 1.0e6, "tokens": 1.0e6, "classifier": 1.0e6, "suspects": 1.0e5, "scored": 5.0e9,
}  # fmt: skip
_RATE_ELSE = 5.0e6


@dataclass(frozen=True)
class Estimate:
    """Of one task that is to run.

    Attributes:
        seconds: of it alone.
        basis: `MEASURED` here on tasks of its kind, or `GUESSED`.
    """

    seconds: float
    basis: str


def estimates(tasks: Mapping[str, Task], stages: Stages) -> dict[str, Estimate | None]:
    """By name; None for a task that is kept."""
    kept = {name for name, task in tasks.items() if stages.kept(task.stage) is not None}
    rates = _measured(stages.records)
    return {name: None if name in kept else _of(task, rates) for name, task in tasks.items()}


def wall_seconds(tasks: Mapping[str, Task], found: Mapping[str, Estimate | None], jobs: int) -> float:
    """From start to end with ``jobs`` at a time, in the order in which they would start."""
    done = {name for name, estimate in found.items() if estimate is None}
    waiting = [name for name in tasks if name not in done]
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        ready = [name for name in waiting if done.issuperset(tasks[name].stage.needs)]
        for name in ready[: jobs - len(running)]:
            estimate = found[name]
            assert estimate is not None  # it is not done
            waiting.remove(name)
            heapq.heappush(running, (now + estimate.seconds, name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now


def _of(task: Task, rates: Mapping[str, float]) -> Estimate:
    start = _START.get(task.kind, _START_ELSE)
    if task.kind in rates:
        return Estimate(start + task.work / rates[task.kind], MEASURED)
    return Estimate(start + task.work / _RATES.get(task.kind, _RATE_ELSE), GUESSED)


def _measured(records: Mapping[str, Any]) -> dict[str, float]:
    """Work a second beyond the start, by kind, of all that was finished."""
    done: dict[str, list[float]] = {}
    for name, record in records.items():
        kind, work = name.partition(" ")[0], record.get("summary", {}).get("work")
        if work:
            sums = done.setdefault(kind, [0.0, 0.0])
            sums[0] += work
            # a command that was quicker than its start is taken to work for half of its time
            sums[1] += max(record["seconds"] - _START.get(kind, _START_ELSE), record["seconds"] / 2, 1e-3)
    return {kind: work / seconds for kind, (work, seconds) in done.items()}
