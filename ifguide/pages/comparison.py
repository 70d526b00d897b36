"""Several evaluations side by side: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ifguide.pages.compared.side_by_side import texts_table
from ifguide.pages.compared.verdicts import caveats, metric_name, verdict
from ifguide.pages.environment import Html, element, heads, join, page, pairs, plotted, scrolling, swatched, warning
from ifguide.pages.evaluation_plots import differences_plot, dots_plot, groups_of
from ifguide.pages.evaluation_table import interval, number, signed, sureness, winner
from ifguide.pages.plots import colours_of
from ifguide.pages.text import said

_PLOTTED = {"emt": "EMT", "tp": "TP"}
_MOST_ROWS = 60
_MOST_PAIRED = 4  # models whose differences are all plotted; of more, those from the first one


def comparison_page(comparison: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The page.

    Args:
        comparison: what `ifguide.evaluation.compare.compare_runs` returns.
        texts: what the models say, by task, as `ifguide.evaluation.compare.texts_side_by_side` returns it.
    """
    left_out, models = comparison["left_out"], comparison["models"]
    labels = [model["label"] for model in models]
    title = " and ".join(labels) if len(labels) == 2 and sum(map(len, labels)) < 60 else f"{len(labels)} models"
    return page(
        "IF-Guide comparison",
        element(
            "main",
            element("h1", f"Comparison of {title}"),
            warning(
                "Content warning.",
                "Some sections of this page quote what models say, insults included. They stay closed until you open "
                "them.",
            )
            if texts
            else None,
            [warning("Not a measurement.", f"{line}.") for line in comparison["warnings"]],
            element(
                "ul",
                [
                    element("li", swatched(label, colour), " ", element("small", model["model"], class_="path"))
                    for label, colour, model in zip(labels, colours_of(labels), models, strict=True)
                ],
                class_="models",
            ),
            element(
                "p",
                f"The same prompts for all models. Differences are paired: {comparison['resamples']:,} resamples of "
                "the prompts, the same ones for both models.",
            ),
            element("p", f"Not compared, because not every model has them: {', '.join(left_out)}.", class_="note")
            if left_out
            else None,
            [
                _task(place, name, comparison, (texts or {}).get(name))
                for place, name in enumerate(comparison["tasks"], start=1)
            ],
            element("h2", "Caveats"),
            element("ul", [element("li", line) for line in caveats(comparison)]),
            element("h2", "Settings"),
            element("div", [pairs(key, values) for key, values in _settings(comparison).items()], class_="columns"),
        ),
        drawn=True,
    )


def _task(place: int, name: str, comparison: Mapping[str, Any], texts: Mapping[str, Any] | None) -> Html:
    metrics, sample = comparison["tasks"][name], comparison["samples"][name]
    several = len({entry["filter"] for entry in metrics}) > 1
    figures = _figures(comparison, name)
    labels = [model["label"] for model in comparison["models"]]
    differences = _difference_figures(comparison, name)
    return join(
        element("h2", name, id=f"task-{place}"),
        element(
            "p",
            f"{sample['prompts']:,} of {sample['available']:,} prompts, drawn at random (seed {sample['seed']}).",
        )
        if sample
        else None,
        element("p", f"Judged by {metrics[0]['filter']}.") if figures and not several else None,
        _verdicts(metrics, labels),
        plotted(differences) if differences else None,
        element("h3", "Values", id=f"values-{place}"),
        scrolling(_values(labels, metrics, several), aria_labelledby=f"values-{place}"),
        plotted(
            (f"{caption}, with 95% intervals; in brackets the number of prompts.", figure)
            for caption, figure in figures
        )
        if figures
        else None,
        element("h3", "Differences", id=f"differences-{place}"),
        _folded(
            sum(len(entry["pairs"]) for entry in metrics),
            scrolling(_differences(metrics, several), aria_labelledby=f"differences-{place}"),
        ),
        join(element("h3", "Texts"), texts_table(name, texts, labels, colours_of(labels))) if texts else None,
    )


def _folded(rows: int, table: Html) -> Html:
    """A table that nobody reads from end to end stands behind a click."""
    return table if rows <= _MOST_ROWS else element("details", element("summary", f"Show all {rows:,}"), table)


def _verdicts(metrics: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Html:
    """One sentence a metric, under who judged it where several did."""
    judges = list(dict.fromkeys(entry["filter"] for entry in metrics))
    blocks = []
    for judge in judges:
        lines = [line for entry in metrics if entry["filter"] == judge and (line := verdict(entry, labels))]
        if len(judges) > 1:
            blocks.append(element("h3", f"By {judge}"))
        blocks.append(element("ul", [element("li", line) for line in lines], class_="verdicts"))
    return join(blocks)


def _values(labels: Sequence[str], metrics: Sequence[Mapping[str, Any]], several: bool) -> Html:
    """One row a metric, one column a model; ``several``: and who judged it."""
    rows = [
        element(
            "tr",
            element("th", entry["metric"], scope="row"),
            element("td", entry["filter"], class_="name") if several else None,
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
    head = heads(
        *columns,
        *(element("div", swatched(*model), class_="name") for model in zip(labels, colours_of(labels), strict=True)),
    )
    return element("table", head, element("tbody", rows), class_="fixed")


def _differences(metrics: Sequence[Mapping[str, Any]], several: bool) -> Html:
    """One row a pair of models and metric."""

    def row(entry: Mapping[str, Any], pair: Mapping[str, Any]) -> Html:
        first = pair is entry["pairs"][0]  # its first cells are those of all pairs
        pairs = len(entry["pairs"])
        return element(
            "tr",
            element("th", entry["metric"], scope="rowgroup", rowspan=pairs) if first else None,
            element("td", entry["filter"], rowspan=pairs, class_="name") if first and several else None,
            element("td", f"{pair['first']} − {pair['second']}", class_="name pair"),
            element("td", signed(pair["difference"])),
            element("td", f"[{signed(pair['interval'][0])}, {signed(pair['interval'][1])}]"),
            element("td", "unsure" if pair["verdict"] == "unsure" else element("strong", winner(pair)), class_="name"),
            element("td", sureness(pair)),
            element("td", pair["differing_prompts"]),
        )

    columns = ["metric", *(["scorer or filter"] if several else []), "pair", "difference", "95% interval", "better",
               "resamples in favour", "prompts that differ"]  # fmt: skip
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


def _difference_figures(comparison: Mapping[str, Any], task: str) -> list[tuple[str, Html]]:
    """Caption and plot of the differences by each scorer: EMT and TP together, any other metric by itself, because
    its numbers are of another size."""
    labels = [model["label"] for model in comparison["models"]]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in comparison["tasks"][task]:
        metric = entry["metric"]
        kind = "" if metric.partition("_")[0] in _PLOTTED else metric
        groups.setdefault((entry["filter"], kind), []).append(entry)
    figures = []
    several = len({judge for judge, _ in groups}) > 1
    for (judge, kind), entries in groups.items():
        kept = [
            place
            for place, pair in enumerate(entries[0]["pairs"])
            if len(labels) <= _MOST_PAIRED or pair["first"] == labels[0]
        ]
        names = [f"{entries[0]['pairs'][place]['first']} − {entries[0]['pairs'][place]['second']}" for place in kept]
        lines = {metric_name(entry["metric"]): [entry["pairs"][place] for place in kept] for entry in entries}
        caption = "Differences with 95% intervals" + (f", {judge}" if several else "")
        if len(names) == 1:
            caption += f": {names[0]}"
        better = "right" if entries[0]["higher_is_better"] else "left"
        caption += f". On the {better} of 0 the first of two is better. Hollow: unsure."
        figures.append((caption, differences_plot(f"{task}-{judge}-{kind}-differences", lines, names)))
    return figures


def _settings(comparison: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What was asked of the models, and of which models, as small tables."""
    tables = {
        f"Model {model['label']}": {
            "run": model["folder"],
            "model": model["model"],
            **{key: said(model[key]) for key in ("hash", "dtype", "seed", "rad") if key in model},
        }
        for model in comparison["models"]
    }
    for task, setting in comparison.get("settings", {}).items():
        judges = [scorer["name"] for scorer in setting.get("scorers", ())]
        tables[f"Task {task}"] = {
            **{key: said(value) for key, value in setting.items() if key != "scorers"},
            "scorers": said(judges or None),
        }
    tables["Comparison"] = {"resamples": f"{comparison['resamples']:,}", "seed": str(comparison["seed"])}
    return tables
