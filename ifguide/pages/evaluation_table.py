"""Evaluations as text for the terminal, and how their numbers are written everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ifguide.system.progress import counted


def number(value: float | None) -> str:
    """Three significant digits, of a thousand and more all digits before the point; a dash for none."""
    if value is None:
        return "–"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if not value or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.2e}" if abs(value) < 1e-4 else f"{value:#.3g}".rstrip(".")


def interval(bounds: Sequence[float] | None) -> str:
    """``[low, high]``; a dash for none."""
    return f"[{number(bounds[0])}, {number(bounds[1])}]" if bounds else "–"


def shown_metrics(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a task that say something of the model: not counts of prompts, nor groups without prompts."""
    return [entry for entry in task["metrics"] if entry["higher_is_better"] is not None and entry["value"] is not None]


def results_table(results: Mapping[str, Any]) -> str:
    """One row a metric: value, 95% interval, prompts, and which direction is better."""
    rows = [["task", "metric", "by", "value", "95% interval", "prompts", "better"]]
    for name, task in results["tasks"].items():
        for entry in shown_metrics(task):
            rows.append(
                [
                    name,
                    entry["metric"],
                    entry["filter"],
                    number(entry["value"]),
                    interval(entry["interval"]),
                    str(entry["prompts"] or "–"),
                    _direction(entry),
                ]
            )
    scorers = ", ".join(scorer["name"] for scorer in results["scorers"])
    said = [f"toxicity by {scorers}"] if scorers else []
    said += warnings_of(results["scorers"])
    said += [line for name, task in results["tasks"].items() if (line := sample_line(name, task.get("sample")))]
    head = "\n".join([*said, ""]) + "\n" if said else ""
    cut = [cut_texts(scorer, scorer["max_tokens"]) for scorer in results["scorers"] if scorer.get("truncated")]
    judges = [
        line for name, task in results["tasks"].items() for line in agreement_lines(name, task.get("agreement", ()))
    ]
    below = [*judges, *cut]
    return "\n".join([head + table(_without_needless_words(rows)), *([""] if below else []), *below])


def sample_line(task: str, sample: Mapping[str, Any] | None) -> str:
    """That a task was evaluated on a part of its prompts; "" where it was on all."""
    if sample is None:
        return ""
    size = f"{sample['prompts']:,} of {counted(sample['available'], 'prompt')}"
    return f"{task}: a random sample of {size}, seed {sample['seed']}"


def warnings_of(scorers: Iterable[Mapping[str, Any]]) -> list[str]:
    """What has to be said beside the numbers of these scorers, a line each; results of earlier versions carry none."""
    return list(dict.fromkeys(f"warning: {scorer['warning']}" for scorer in scorers if scorer.get("warning")))


def agreement_lines(task: str, pairs: Iterable[Mapping[str, Any]]) -> list[str]:
    """How far each two judges of a task agree, a sentence each; results of earlier versions have no such pairs."""
    return [f"{task}: {agreed(pair)}" for pair in pairs]


def agreed(pair: Mapping[str, Any]) -> str:
    """How far two judges agree, in a sentence."""
    if pair["kappa"] is None:
        said = "no κ, because both call all texts the same"
    else:
        said = f"κ {pair['kappa']:.2f}" + (f" {interval(pair['interval'])}" if pair["interval"] else "")
    return (
        f"{pair['first']} and {pair['second']} agree on {pair['same']:.1%} of {pair['texts']:,} texts: {said}; toxic "
        f"by the first alone {pair['first_only']:,}, by the second alone {pair['second_only']:,}"
    )


def cut_texts(scorer: Mapping[str, Any], max_tokens: int | None) -> str:
    """That a scorer read only the start of some texts, in a sentence."""
    one = scorer["truncated"] == 1
    return (
        f"{scorer['name']} reads {max_tokens} tokens: {scorer['truncated']:,} of {counted(scorer['texts'], 'text')} "
        + ("was longer and is judged by its start." if one else "were longer and are judged by their start.")
    )


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Two tables: the models' values, one row a metric; and the differences, one row a pair of models and metric."""
    labels = [model["label"] for model in comparison["models"]]
    values = [["task", "metric", "by", "prompts", "better", *labels]]
    differences = [["task", "metric", "by", "pair", "difference", "95% interval", "better", "resamples in favour"]]
    for name, metrics in comparison["tasks"].items():
        for entry in metrics:
            what = [name, entry["metric"], entry["filter"]]
            values.append([*what, str(entry["prompts"]), _direction(entry), *map(number, entry["values"])])
            for pair in entry["pairs"]:
                models = f"{pair['first']} - {pair['second']}"
                bounds = ", ".join(map(signed, pair["interval"]))
                numbers = [signed(pair["difference"]), f"[{bounds}]"]
                differences.append([*what, models, *numbers, winner(pair), sureness(pair)])
    said = [f"warning: {warning}" for warning in comparison["warnings"]]
    said += [line for name, sample in comparison["samples"].items() if (line := sample_line(name, sample))]
    tables = [table(_without_needless_words(rows)) for rows in (values, differences)]
    return "\n\n".join(["\n".join(said), *tables] if said else tables)


def winner(pair: Mapping[str, Any]) -> str:
    """The label of the better one of two models, or that it is not known."""
    return pair[pair["verdict"]] if pair["verdict"] != "unsure" else "unsure"


def sureness(pair: Mapping[str, Any]) -> str:
    """Share of the resamples in which the one that more of them speak for is better."""
    share = max(pair["share_first_better"], 1 - pair["share_first_better"])
    return ">99.9%" if share > 0.9995 else f"{share:.1%}"


def signed(value: float) -> str:
    """As `number`, with a sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def _direction(entry: Mapping[str, Any]) -> str:
    return "higher" if entry["higher_is_better"] else "lower"


def _without_needless_words(rows: Sequence[list[str]]) -> list[list[str]]:
    """Each task and metric named once, and who judged (third column) only where a task has several of them."""
    pipelines: dict[str, set[str]] = {}
    for task, _, pipeline, *_ in rows[1:]:
        pipelines.setdefault(task, set()).add(pipeline)
    several = any(len(some) > 1 for some in pipelines.values())
    shown, before = [], ["", "", ""]
    for row in rows:
        what = row[:3]
        same = [what[: place + 1] == before[: place + 1] for place in range(3)]
        before = what
        cells = ["" if repeated else cell for cell, repeated in zip(what, same)]
        shown.append([*(cells if several else cells[:2]), *row[3:]])
    return shown
