"""Several evaluations side by side: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ifguide.pages.environment import Html, element, heads, join, page, plotted, scrolling, swatched, warning
from ifguide.pages.evaluation_plots import dots_plot, groups_of
from ifguide.pages.evaluation_table import interval, number, signed, sureness, winner
from ifguide.pages.plots import colours_of

_PLOTTED = {"emt": "EMT", "tp": "TP"}


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """The page.

    Args:
        comparison: what `ifguide.evaluation.compare.compare` returns.
    """
    left_out = comparison["left_out"]
    return page(
        "IF-Guide comparison",
        element(
            "main",
            element("h1", " · ".join(model["label"] for model in comparison["models"])),
            element(
                "p",
                f"The same prompts for all models. Differences are paired: {comparison['resamples']:,} resamples of "
                "the prompts, the same ones for both models.",
            ),
            [warning("Not a measurement.", f"{line}.") for line in comparison["warnings"]],
            element("p", f"Not compared, because not every model has them: {', '.join(left_out)}.", class_="note")
            if left_out
            else None,
            [_task(place, name, comparison) for place, name in enumerate(comparison["tasks"], start=1)],
        ),
        drawn=True,
    )


def _task(place: int, name: str, comparison: Mapping[str, Any]) -> Html:
    metrics, sample = comparison["tasks"][name], comparison["samples"][name]
    several = len({entry["filter"] for entry in metrics}) > 1
    figures = _figures(comparison, name)
    return join(
        element("h2", name, id=f"task-{place}"),
        element(
            "p",
            f"{sample['prompts']:,} of {sample['available']:,} prompts, drawn at random (seed {sample['seed']}).",
        )
        if sample
        else None,
        element("p", f"Judged by {metrics[0]['filter']}.") if figures and not several else None,
        scrolling(_values(comparison["models"], metrics, several), aria_labelledby=f"task-{place}"),
        plotted(
            (f"{caption}, with 95% intervals; in brackets the number of prompts.", figure)
            for caption, figure in figures
        )
        if figures
        else None,
        element("h3", "Differences", id=f"differences-{place}"),
        scrolling(_differences(metrics, several), aria_labelledby=f"differences-{place}"),
    )


def _values(models: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]], several: bool) -> Html:
    """One row a metric, one column a model; ``several``: and who judged it."""
    labels = [model["label"] for model in models]
    rows = [
        element(
            "tr",
            element("th", entry["metric"], scope="row"),
            element("td", entry["filter"]) if several else None,
            element("td", entry["prompts"]),
            element("td", "higher" if entry["higher_is_better"] else "lower"),
            [
                element("td", number(value), [" ", element("small", interval(bounds))] if bounds else None)
                for value, bounds in zip(entry["values"], entry["intervals"], strict=True)
            ],
        )
        for entry in metrics
    ]
    columns = ["metric", *(["scorer or filter"] if several else []), "prompts", "better"]
    head = heads(*columns, *map(swatched, labels, colours_of(labels)))
    return element("table", head, element("tbody", rows), class_="fixed")


def _differences(metrics: Sequence[Mapping[str, Any]], several: bool) -> Html:
    """One row a pair of models and metric."""

    def row(entry: Mapping[str, Any], pair: Mapping[str, Any]) -> Html:
        first = pair is entry["pairs"][0]  # its first cells are those of all pairs
        pairs = len(entry["pairs"])
        return element(
            "tr",
            element("th", entry["metric"], scope="rowgroup", rowspan=pairs) if first else None,
            element("td", entry["filter"], rowspan=pairs) if first and several else None,
            element("td", f"{pair['first']} − {pair['second']}"),
            element("td", signed(pair["difference"])),
            element("td", f"[{signed(pair['interval'][0])}, {signed(pair['interval'][1])}]"),
            element("td", "unsure" if pair["verdict"] == "unsure" else element("strong", winner(pair))),
            element("td", sureness(pair)),
            element("td", pair["differing_prompts"]),
        )

    columns = ["metric", *(["scorer or filter"] if several else []), "models", "difference", "95% interval", "better",
               "share of resamples", "prompts that differ"]  # fmt: skip
    rows = [row(entry, pair) for entry in metrics for pair in entry["pairs"]]
    return element("table", heads(*columns), element("tbody", rows), class_="fixed")


def _figures(comparison: Mapping[str, Any], task: str) -> list[tuple[str, Html]]:
    """Caption and plot of EMT and of TP of each scorer: one line a group of prompts, one colour a model."""
    metrics = comparison["tasks"][task]
    labels = [model["label"] for model in comparison["models"]]
    series = list(zip(labels, colours_of(labels)))
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
