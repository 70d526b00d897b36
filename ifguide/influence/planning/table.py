"""A plan as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ifguide.influence.planning.advice import gigabytes
from ifguide.system.progress import counted


def render(plan: dict[str, Any]) -> str:
    """All of a `plan` but its faults."""
    return "\n".join(_lines(plan))


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    model, data, settings = plan["model"], plan["data"], plan["settings"]
    yield (
        f"model    {model['architecture']}, {_count(model['parameters'])} parameters, "
        f"{model['tracked_layers']} tracked layers with {_count(model['tracked_weights'])} weights"
    )
    yield (
        f"data     {counted(data['documents'], 'document')}, {counted(data['tokens'], 'token')} in "
        f"{counted(data['windows'], 'window')} of up to "
        f"{settings['seq_length']}: {data['overlap']:.1%} more by overlap, {data['padding']:.1%} padding"
    )
    yield ""
    yield from _memory(plan)
    yield ""
    yield from _disk(plan)
    yield ""
    yield from _operations(plan)


def _memory(plan: dict[str, Any]) -> Iterator[str]:
    settings, limits = plan["settings"], plan["limits"]
    where = "memory" if settings["device"] == "cpu" else "GPU memory"
    limit = limits["host"] if settings["device"] == "cpu" else limits["device"]
    ranks = f", {settings['ranks']} processes" if settings["ranks"] > 1 else ""
    yield f"{where}, one process{ranks}" + (f" (there is {gigabytes(limit)})" if limit else "")
    for peak in plan["memory"]:
        yield f"  {peak['job'] + ': ' + peak['phase']:<44}{gigabytes(peak['device_bytes']):>10}" + (
            "" if settings["device"] == "cpu" else f"   host {gigabytes(peak['host_bytes'])}"
        )
        for name, size in sorted(peak["device"].items(), key=lambda item: -item[1]):
            if size:
                yield f"      {name:<60}{gigabytes(size):>10}"


def _disk(plan: dict[str, Any]) -> Iterator[str]:
    yield f"disk ({plan['settings']['disk']} has {gigabytes(plan['limits']['disk'])} free)"
    for file in plan["disk"]:
        note = " (temporary)" if file["temporary"] else ""
        yield f"  {file['job'] + ': ' + file['name'] + note:<64}{gigabytes(file['bytes']):>12}"


def _operations(plan: dict[str, Any]) -> Iterator[str]:
    rows = [("work", "operations", "per token", "time")]
    for row in plan["operations"]:
        seconds = "" if row["seconds"] is None else duration(row["seconds"])
        rows.append((f"  {row['job']}: {row['phase']}", _count(row["operations"]), _count(row["per_token"]), seconds))
    yield from (f"{name:<44}{total:>14}{each:>14}{time:>12}" for name, total, each, time in rows)
    for name, timed in (plan["timing"] or {}).items():
        yield (
            f"timed: a batch of {timed['rows']} x {timed['columns']} by {name} in {timed['seconds']:.3g} s, "
            f"{timed['tokens_per_second']:,.0f} tokens/s"
        )
    if plan["seconds"] is not None:
        yield f"in all about {duration(plan['seconds'])}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _count(number: float) -> str:
    return f"{number:.3g}" if number >= 1e15 else next(_scaled(number))


def _scaled(number: float, units: Sequence[tuple[str, float]] = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))):
    for unit, size in units:
        if number >= size:
            yield f"{number / size:.3g} {unit}"
    yield f"{number:.0f}"
