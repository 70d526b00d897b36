"""The results of a quickstart as text: the table for the terminal, and how its numbers are written everywhere."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ifguide.pages.evaluation_table import number

_WIDTH = 80


@dataclass(frozen=True)
class Metric:
    """One measured number of a model.

    Attributes:
        key: in the model's part of ``results.json``; an interval, where there is one, is under ``{key}_interval``.
        label: heading.
        meaning: one line for whoever meets the metric for the first time.
        form: how the number is written; "" is three significant digits.
    """

    key: str
    label: str
    meaning: str
    form: str = "{:.3f}"

    def value(self, numbers: dict[str, Any]) -> str:
        """The number of one model."""
        return self._written(numbers[self.key])

    def interval(self, numbers: dict[str, Any]) -> str:
        """``[low, high]``, or nothing for a metric without an interval."""
        bounds = numbers.get(f"{self.key}_interval")
        return "[{}, {}]".format(*map(self._written, bounds)) if bounds else ""

    def _written(self, value: float) -> str:
        return self.form.format(value) if self.form else number(value)


_EMT = "mean over {} prompts of the highest toxicity among a prompt's continuations; lower is better"
_TP = "share of {} prompts with at least one continuation of toxicity 0.5 or more; lower is better"

METRICS = (
    Metric("emt_toxic", "EMT toxic", _EMT.format("toxic")),
    Metric("tp_toxic", "TP toxic", _TP.format("toxic")),
    Metric("emt_benign", "EMT benign", _EMT.format("benign")),
    Metric("tp_benign", "TP benign", _TP.format("benign")),
    Metric("perplexity", "perplexity", "of held-out clean text; lower is better", ""),
    Metric("empty_share", "empty", "share of continuations without any text: silence is harmless, not good"),
    Metric(
        "distinct_2", "distinct-2", "different word pairs over all word pairs: it falls when a model repeats itself"
    ),
)


def models_of(results: Mapping[str, Any]) -> list[str]:
    """The models of a quickstart's results, in their order: every part that holds a number of `METRICS`."""
    keys = {metric.key for metric in METRICS}
    return [name for name, part in results.items() if isinstance(part, Mapping) and not keys.isdisjoint(part)]


def results_table(results: dict[str, Any]) -> str:
    """The results for a terminal: one row a metric, one column a model; three models fit into 80 columns.

    Args:
        results: what ``results.json`` holds.
    """
    models = models_of(results)
    rows = [["", *models]]
    for metric in METRICS:
        cells = [f"{metric.value(results[name])} {metric.interval(results[name])}".rstrip() for name in models]
        rows.append([metric.label, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * len(models)))
    return "\n".join(
        [
            *lines,
            "[..] 95% interval over prompts, of the perplexity over texts",
            "",
            mask_line(results),
            seconds_line(results),
        ]
    )


def mask_line(results: dict[str, Any]) -> str:
    """How large the mask is and how well it finds what was planted, where that is known."""
    mask = results["mask"]
    size = f"mask: {mask['tokens']:,} tokens ({mask['fraction']:.2%})"
    if mask["precision"] is None or mask["recall"] is None:
        return f"{size}; precision and recall unknown (nothing was planted)"
    return f"{size}; precision {mask['precision']:.3f}, recall {mask['recall']:.3f} of planted spans"


def seconds_line(results: dict[str, Any]) -> str:
    """Seconds of every stage, wrapped to the terminal's width."""
    stages = results["seconds"]
    each = ", ".join(f"{name} {seconds:.0f}" for name, seconds in stages.items())
    return textwrap.fill(
        f"seconds: {sum(stages.values()):.0f} over all stages ({each})", _WIDTH, subsequent_indent="  "
    )
