"""An experiment for the terminal: what will run, and its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifguide.pages.evaluation_table import table

# metric, heading, form; further judges and texts stand in the page and in results.json
COLUMNS = (
    ("emt_toxic", "EMT toxic", "{:.3f}"),
    ("tp_toxic", "TP toxic", "{:.3f}"),
    ("tp_benign", "TP benign", "{:.3f}"),
    ("perplexity", "perplexity", "{:.4g}"),
    ("empty_share", "empty", "{:.3f}"),
    ("distinct_2", "distinct-2", "{:.3f}"),
)
_COMMAND = 100


def results_text(results: Mapping[str, Any]) -> str:
    """The means over seeds with their intervals, one row a method, and what failed."""
    rows = [["", *(label for _, label, _ in COLUMNS)]]
    for name, entry in results["methods"].items():
        rows.append([name, *(cell_text(entry, metric, form) for metric, _, form in COLUMNS)])
    lines = [table(rows)]
    seeds = results["seeds"]
    over = "prompts" if len(seeds) == 1 else f"prompts and {len(seeds)} seeds"
    lines.append(f"[..] 95% interval over {over}; judged by {results['judges'][0]}")
    failed = results["failed"]
    lines += [f"FAILED {one['cell']}, seed {one['seed']}: {one['stage']}: {one['reason']}" for one in failed]
    return "\n".join(lines)


def cell_text(entry: Mapping[str, Any], metric: str, form: str) -> str:
    """``mean [low, high]``; a dash where there is no number."""
    value = entry["mean"].get(metric)
    if value is None:
        return "–"
    bounds = entry["interval"].get(metric)
    interval = f" [{form.format(bounds[0])}, {form.format(bounds[1])}]" if bounds else ""
    return f"{form.format(value)}{interval}"


def preview_text(preview: Mapping[str, Any]) -> str:
    """Every stage with its state, its seconds and its command, and the time of all."""
    rows = [["state", "seconds", "stage", "command"]]
    for stage in preview["stages"]:
        seconds = f"{stage['seconds']:.0f} {stage['basis']}" if "seconds" in stage else ""
        command = stage["command"]
        shown = command if len(command) <= _COMMAND else f"{command[: _COMMAND - 1]}…"
        rows.append([stage["state"], seconds, stage["stage"], shown])
    work, wall = duration(preview["seconds"]), duration(preview["wall_seconds"])
    to_run = sum(stage["state"] != "kept" for stage in preview["stages"])
    return "\n".join(
        [
            table(rows),
            "",
            f"{to_run} of {len(preview['stages'])} stages to run for {preview['cells']} models to judge: about "
            f"{work} of work, {wall} with --jobs {preview['jobs']}",
            f"{preview['guessed']} of the times are guessed from rates of a plain CPU; the others were measured here",
        ]
    )


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3.4 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 129_600 else f"{seconds / 86_400:.1f} days"
