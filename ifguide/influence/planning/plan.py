"""What fitting factors and scoring will take, before they start: memory, disk, operations and time.

Everything but the time follows from the model's configuration and the dataset's index, so what
cannot fit is known at once. The time comes from one batch of the real pass.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ifguide.data.indexed import TokenDataset
from ifguide.errors import ConfigError
from ifguide.influence.curvature.partitions import Partitions
from ifguide.influence.options import Method
from ifguide.influence.passes.method import DTYPES
from ifguide.influence.passes.step_search import SAMPLE_TOKENS, STEPS
from ifguide.influence.planning import work as plan_work
from ifguide.influence.planning.advice import disk_faults, memory_faults
from ifguide.influence.planning.machine import limits
from ifguide.influence.planning.memory import Peak
from ifguide.influence.planning.needs import JOBS, Needs, candidates
from ifguide.influence.planning.settings import Settings
from ifguide.influence.planning.shape import read_shape
from ifguide.influence.planning.timing import Measured, time_batch
from ifguide.influence.shards import shard_tokens_for
from ifguide.influence.windows import Windows, cut, resolve_lengths, sample
from ifguide.models.devices import own_device
from ifguide.models.tracked import load_model


def plan(
    model_dir: str | Path,
    data_prefix: str | Path,
    settings: Settings | None = None,
    jobs: tuple[str, ...] = JOBS,
    timing: bool = False,
) -> dict[str, Any]:
    """What ``jobs`` need.

    Args:
        timing: load the weights and time a batch; without it only the configuration is read.

    Returns:
        JSON-able: ``model``, ``data``, ``settings``, ``limits``, ``memory`` (a peak for each phase), ``disk`` (a file
        each), ``partitions`` (how the fit is cut), ``operations`` (a phase each, with ``seconds`` where timed),
        ``timing``, ``seconds``, and ``faults``: a line for each thing that cannot fit, with the flags that make it fit.

    Raises:
        InputError: settings, model or data that cannot be used.
    """
    settings = settings or Settings()
    if faults := settings.faults():
        raise ConfigError(faults)
    dataset = TokenDataset.open(data_prefix)
    shape = read_shape(model_dir, settings.modules, data_prefix)
    seq_length, context = resolve_lengths(shape.window, settings.seq_length, settings.context)
    device = settings.device or own_device()
    if settings.method.tf32 and device == "cpu":
        raise ConfigError(["--tf32 needs an NVIDIA GPU, this plan is for a CPU; leave it out"])
    shard_tokens = settings.shard_tokens or shard_tokens_for(dataset.num_tokens)
    settings = replace(settings, seq_length=seq_length, context=context, device=device, shard_tokens=shard_tokens)
    available = limits(device, settings.device_memory, settings.disk)
    windows = cut(dataset, shape.eod, seq_length, context)
    batch_tokens = settings.batch_size * seq_length
    work = plan_work.measure(windows, batch_tokens, shard_tokens)
    device_memory = None if device == "cpu" else available.device
    needs = Needs(shape, dataset, int(dataset.lengths.max(initial=1)), work.positions, device_memory)
    measured = {}
    faults = memory_faults(needs, jobs, settings, available) + disk_faults(needs, jobs, settings, available)
    # what does not fit cannot be timed either
    if timing and work.windows and not faults:
        group = plan_work.middle_batch(windows, batch_tokens, shard_tokens)
        model = load_model(model_dir, DTYPES[settings.method.dtype], pattern=settings.modules, device=device)
        for method in candidates(settings.method):
            measured[method.method] = time_batch(model, shape, windows.batch(group), method, settings.directions)
    partitions = needs.partitions(settings)
    operations = _operations(needs, settings, jobs, windows, work, partitions, measured)
    return {
        "model": {
            "path": str(model_dir),
            "architecture": shape.architecture,
            "parameters": shape.parameters,
            "tracked_layers": len(shape.tracked),
            "tracked_weights": shape.matrices,
        },
        "data": {
            "prefix": str(data_prefix),
            "documents": dataset.num_documents,
            "tokens": dataset.num_tokens,
            "windows": work.windows,
            "scored_tokens": work.scored,
            "longest_window": work.longest,
            "overlap": round(work.overlap, 4),
            "padding": round(work.padding, 4),
        },
        "settings": {**asdict(settings), "disk": str(settings.disk)},
        "limits": asdict(available),
        "memory": [{"job": job, **_peak(peak)} for job in jobs for peak in needs.memory(job, settings)],
        "disk": [{"job": job, **asdict(file)} for job in jobs for file in needs.disk(job, settings)],
        "partitions": asdict(partitions),
        "operations": operations,
        "timing": {name: asdict(found) for name, found in measured.items()} or None,
        "seconds": _total_seconds(operations) if measured else None,
        "faults": faults,
    }


def _operations(
    needs: Needs,
    settings: Settings,
    jobs: tuple[str, ...],
    windows: Windows,
    work: plan_work.Work,
    partitions: Partitions,
    measured: dict[str, Measured],
) -> list[dict[str, Any]]:
    """Phases in order: job, phase, operations, operations per scored token, seconds."""
    assert settings.seq_length
    shape, rows = needs.shape, []
    batch_tokens = settings.batch_size * settings.seq_length
    rate = max((found.operations_per_second for found in measured.values()), default=None)

    def add(job: str, phase: str, operations: float, tokens: int, seconds: float | None) -> None:
        per_token = round(operations / tokens) if tokens else 0
        rows.append(
            {
                "job": job,
                "phase": phase,
                "operations": round(operations),
                "per_token": per_token,
                "seconds": None if seconds is None else round(seconds, 3),
            }
        )

    any_measured = next(iter(measured.values()), None)
    if "fit-factors" in jobs:
        chosen = sample(windows, settings.factor_tokens, seed=0)
        fit = plan_work.measure(chosen, batch_tokens)
        for phase, operations in plan_work.fitting(shape, fit, settings.strategy, partitions).items():
            seconds = rate and operations / rate
            if phase == "eigendecomposition" and any_measured:
                seconds = operations * any_measured.eigen_seconds_per_cube
            add("fit-factors", phase, operations, fit.scored, seconds)
    if "score" in jobs:
        operations = plan_work.direction(shape, settings.query_tokens, settings.strategy, settings.directions)
        add("score", "direction", operations, settings.query_tokens, rate and operations / rate)
        methods = candidates(settings.method)
        share = min(1.0, SAMPLE_TOKENS / max(1, work.scored))
        if settings.method.searches:
            pair = (Method("loss-term", "jvp", rank=settings.method.rank), 1), (methods[0], len(STEPS) + 2)
            search = share * sum(n * plan_work.scoring(shape, work, m, settings.directions) for m, n in pair)
            add("score", "search of the step", search, round(share * work.scored), rate and search / rate)
        for method in methods:
            operations = plan_work.scoring(shape, work, method, settings.directions)
            found = measured.get(method.method)
            # each process has a device of its own, or all share the cores
            ranks = settings.ranks if settings.device == "cuda" else 1
            seconds = operations / found.operations_per_second / ranks if found else None
            name = "position" if method.attribution == "position" else method.method
            add("score", f"scoring pass ({name})", operations, work.scored, seconds)
    return rows


def _total_seconds(operations: list[dict[str, Any]]) -> float:
    """All phases, with the slower of the passes that may be taken."""
    passes_ = [row["seconds"] for row in operations if row["phase"].startswith("scoring pass")]
    others = [row["seconds"] for row in operations if not row["phase"].startswith("scoring pass")]
    return round(sum(others) + max(passes_, default=0.0), 3)


def _peak(peak: Peak) -> dict[str, Any]:
    return {**asdict(peak), "device_bytes": peak.device_bytes, "host_bytes": peak.host_bytes}
