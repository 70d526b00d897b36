"""Several evaluations side by side: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ifguide.pages.evaluation import environment, style
from ifguide.pages.evaluation_plots import SERIES, dots_plot, groups_of
from ifguide.pages.evaluation_table import signed, sureness, winner

_PLOTTED = {"emt": "EMT", "tp": "TP"}


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """The page.

    Args:
        comparison: what `ifguide.evaluation.compare.compare` returns.
    """
    templates = environment()
    templates.filters.update(signed=signed, winner=winner, sureness=sureness)
    return templates.get_template("comparison.html.j2").render(
        comparison=comparison,
        colours=[SERIES[place % len(SERIES)] for place in range(len(comparison["models"]))],
        figures={name: _figures(comparison, name) for name in comparison["tasks"]},
        style=style(),
    )


def _figures(comparison: Mapping[str, Any], task: str) -> list[tuple[str, Markup]]:
    """Caption and plot of EMT and of TP of each scorer: one line a group of prompts, one colour a model."""
    metrics = comparison["tasks"][task]
    series = [(model["label"], SERIES[place % len(SERIES)]) for place, model in enumerate(comparison["models"])]
    figures = []
    for pipeline in dict.fromkeys(entry["filter"] for entry in metrics):
        for metric, label in _PLOTTED.items():
            groups = groups_of([entry for entry in metrics if entry["filter"] == pipeline], (metric,))
            if groups:
                lines = {
                    f"{group} ({entries[metric]['prompts']})": [
                        (value, bounds) if bounds else None
                        for value, bounds in zip(entries[metric]["values"], entries[metric]["intervals"], strict=True)
                    ]
                    for group, entries in groups.items()
                }
                figures.append((f"{label}, {pipeline}", dots_plot(f"{task}-{pipeline}-{metric}", lines, series)))
    return figures
