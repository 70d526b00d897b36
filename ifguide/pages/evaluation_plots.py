"""Values with their intervals as dots and whiskers, for evaluations and their comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ifguide.pages.environment import Html
from ifguide.pages.plots import COLOURS, colours_of, legend_columns, plain, svg

Entry = Mapping[str, Any]
_ALL = "all prompts"


def groups_of(metrics: Sequence[Entry], names: Sequence[str] = ("emt", "tp")) -> dict[str, dict[str, Entry]]:
    """``{group: {emt or tp: metric}}`` of the metrics ``emt``, ``emt_GROUP`` and so on, all prompts first."""
    groups: dict[str, dict[str, Entry]] = {}
    for entry in metrics:
        metric, _, group = entry["metric"].partition("_")
        if metric in names:
            groups.setdefault(group or _ALL, {})[metric] = entry
    return groups


def dots_plot(
    name: str, lines: Mapping[str, Sequence[tuple[float, Sequence[float]] | None]], series: Sequence[tuple[str, str]]
) -> Html:
    """Shares between 0 and 1 as SVG.

    Args:
        name: keeps the ids of two figures on one page apart.
        lines: from top to bottom: for each series its value and interval, or None.
        series: label and colour (of the style sheet) of each.
    """

    def draw(axes: Axes) -> None:
        for place, (label, colour) in enumerate(series):
            known = [(line, row[place]) for line, row in enumerate(lines.values())]
            shown = [(line, *cell) for line, cell in known if cell is not None]
            _dots(axes, shown, _shift(place, len(series)), colour, label)
        axes.set_xlim(-0.02, 1.02)
        _lines(axes, list(lines), [label for label, _ in series])

    return svg(name, draw, 6.4, _height(len(lines), [label for label, _ in series]))


def differences_plot(name: str, lines: Mapping[str, Sequence[Entry]], pairs: Sequence[str]) -> Html:
    """Differences with their intervals around 0; one that is not sure is hollow.

    Args:
        name: keeps the ids of two figures on one page apart.
        lines: from top to bottom: the ``difference``, ``interval`` and ``verdict`` of each pair.
        pairs: what each pair is called.
    """
    colours = colours_of([f"{place}" for place in range(len(pairs))])

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=COLOURS["ink"], linewidth=1)
        for place, (label, colour) in enumerate(zip(pairs, colours)):
            shift = _shift(place, len(pairs))
            rows = [(line, row[place]) for line, row in enumerate(lines.values())]
            for hollow in (False, True):
                shown = [
                    (line, pair["difference"], pair["interval"])
                    for line, pair in rows
                    if (pair["verdict"] == "unsure") == hollow
                ]
                _dots(axes, shown, shift, colour, None, hollow)
            # of the legend, which shows a pair as it is where it is sure
            axes.errorbar([], [], xerr=[], fmt="o", markersize=5, color=COLOURS[colour], label=plain(label))
        _lines(axes, list(lines), pairs)

    return svg(name, draw, 6.4, _height(len(lines), pairs))


def _dots(
    axes: Axes, shown: Sequence[tuple[int, float, Sequence[float]]], shift: float, colour: str, label: str | None,
    hollow: bool = False,
) -> None:  # fmt: skip
    """(line, value, interval) of one series, each ``shift`` below its line."""
    values = np.array([value for _, value, _ in shown])
    bounds = np.array([bound for _, _, bound in shown]).reshape(-1, 2)
    axes.errorbar(
        values, [line + shift for line, _, _ in shown],
        xerr=np.maximum([values - bounds[:, 0], bounds[:, 1] - values], 0), fmt="o", markersize=5, capsize=3,
        elinewidth=1.4, color=COLOURS[colour], markerfacecolor="none" if hollow else COLOURS[colour],
        label=None if label is None else plain(label),
    )  # fmt: skip


def _shift(place: int, count: int) -> float:
    return 0.6 / count * (place - (count - 1) / 2)


def _lines(axes: Axes, names: Sequence[str], legend: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), list(map(plain, names)))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    if len(legend) > 1:
        axes.legend(ncols=legend_columns(legend), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _height(lines: int, legend: Sequence[str]) -> float:
    rows = math.ceil(len(legend) / legend_columns(legend)) if len(legend) > 1 else 0
    return 0.7 + 0.24 * rows + 0.21 * max(2, len(legend)) * lines
