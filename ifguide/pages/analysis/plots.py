"""Figures of findings, drawn from their plain values (`ifguide.analysis.findings`) in the style of all other plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ifguide.pages.environment import Html, element, heads, join, scrolling, shade_class
from ifguide.pages.plots import COLOURS, SERIES, colours_of, plain, svg

_BAND = 0.18
_MOST_LEGEND_COLUMNS = 2


def figure_of(name: str, figure: Mapping[str, Any], models: Sequence[str]) -> Html:
    """A plot, or a coloured table.

    Args:
        name: keeps the ids of two figures on one page apart.
        models: all of the page, which have the same colours in every figure.

    Raises:
        ValueError: a kind of figure that is not known.
    """
    kind = figure["kind"]
    if kind == "heat":
        return heat_table(figure)
    colours = _colours(figure, models)
    legend = -(-len(figure["series"]) // _MOST_LEGEND_COLUMNS) * 0.22
    if kind == "lines":
        return svg(name, lambda axes: _lines(axes, figure, colours), 6.4, 3.2 + legend)
    if kind == "dots":
        height = 0.9 + 0.17 * max(2, len(figure["series"])) * len(figure["rows"]) + legend
        return svg(name, lambda axes: _dots(axes, figure, colours), 6.4, height)
    raise ValueError(f"figures of kind {kind} are not known")


def heat_table(figure: Mapping[str, Any]) -> Html:
    """Numbers in cells, the largest in full colour."""
    rows = [
        element(
            "tr",
            element("th", label, scope="row"),
            [
                element("td", "–")
                if value is None
                else element("td", format(value, figure["form"]), class_=shade_class(value, figure["full"]) or None)
                for value in values
            ],
        )
        for label, values in zip(figure["rows"], figure["values"], strict=True)
    ]
    table = element("table", heads(figure["corner"], *figure["columns"]), element("tbody", rows), class_="heat")
    return scrolling(table, aria_label=figure["corner"])


def token_map(entry: Mapping[str, Any]) -> Html:
    """Tokens from left to right, layers from the embedding at the bottom to the last at the top: red is toxic."""
    tokens = entry["tokens"]
    rows = [
        element(
            "tr",
            element("th", "embedding" if layer == 0 else layer, scope="row"),
            [
                element("td", class_=shade_class(value - 0.5, 0.5) or None, title=f"{value:.2f}")
                for value in entry["values"][layer]
            ],
        )
        for layer in reversed(range(len(entry["values"])))
    ]
    head = element("thead", element("tr", element("th", "layer", scope="col"), [
        element("th", token.replace("\n", "⏎").replace(" ", "␣", 1) if token.strip() else "␣", scope="col")
        for token in tokens
    ]))  # fmt: skip
    label = f"{entry['model']}, {entry['probe']}"
    table = element("table", element("caption", label), head, element("tbody", rows), class_="map")
    return join(scrolling(table, aria_label=label))


def _lines(axes: Axes, figure: Mapping[str, Any], colours: Sequence[str]) -> None:
    x = np.asarray(figure["x"], dtype=np.float64)
    for one, colour in zip(figure["series"], colours, strict=True):
        values = _numbers(one["values"])
        if one["intervals"] is not None:
            bounds = np.array([[np.nan] * 2 if pair is None else pair for pair in one["intervals"]])
            axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=COLOURS[colour], alpha=_BAND, linewidth=0)
        axes.plot(x, values, label=plain(one["label"]), color=COLOURS[colour], marker="o", markersize=3.5,
                  linestyle="--" if one["dashed"] else "-")  # fmt: skip
    if figure["level"] is not None:
        axes.axhline(figure["level"], color=COLOURS["ink"], linewidth=0.8, linestyle=":")
    limits = figure["limits"]
    if limits is not None:
        axes.set_ylim(limits[0], limits[1] if len(limits) > 1 else None)
    if (x == np.round(x)).all():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(plain(figure["x_label"]))
    axes.set_ylabel(plain(figure["y_label"]))
    _legend(axes, figure)


def _dots(axes: Axes, figure: Mapping[str, Any], colours: Sequence[str]) -> None:
    drawn = figure["series"]
    step = 0.6 / len(drawn)
    for place, (one, colour) in enumerate(zip(drawn, colours, strict=True)):
        values = _numbers(one["values"])
        bounds = np.array([[np.nan] * 2 if pair is None else pair for pair in one["intervals"]])
        errors = np.maximum([values - bounds[:, 0], bounds[:, 1] - values], 0)
        axes.errorbar(
            values, np.arange(len(values)) + step * (place - (len(drawn) - 1) / 2), xerr=errors, fmt="o", markersize=5,
            capsize=3, elinewidth=1.4, color=COLOURS[colour], label=plain(one["label"]),
        )  # fmt: skip
    if figure["level"] is not None:
        axes.axvline(figure["level"], color=COLOURS["ink"], linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(figure["rows"])), list(map(plain, figure["rows"])))
    axes.set_ylim(len(figure["rows"]) - 0.4, -0.6)
    axes.set_xlabel(plain(figure["x_label"]))
    axes.grid(axis="y", visible=False)
    _legend(axes, figure)


def _legend(axes: Axes, figure: Mapping[str, Any]) -> None:
    columns = min(_MOST_LEGEND_COLUMNS, len(figure["series"]))
    axes.legend(ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _colours(figure: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Of each series: its model's, or for what is no model the next one that no model of the figure has."""
    of_model = dict(zip(models, colours_of(models)))
    names = dict.fromkeys(one["model"] for one in figure["series"])
    taken = {of_model[name] for name in names if name in of_model}
    left = cycle([colour for colour in SERIES if colour not in taken] or SERIES)
    others = dict(zip([name for name in names if name not in of_model], left))
    return [of_model.get(one["model"]) or others[one["model"]] for one in figure["series"]]


def _numbers(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
