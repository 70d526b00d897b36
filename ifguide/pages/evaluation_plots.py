"""Values with their intervals as dots and whiskers, for evaluations and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ifguide.pages.environment import Html
from ifguide.pages.plots import COLOURS, plain, svg

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
        step = 0.6 / len(series)
        for place, (label, colour) in enumerate(series):
            known = [(line, row[place]) for line, row in enumerate(lines.values())]
            shown = [(line, *cell) for line, cell in known if cell is not None]
            values = np.array([value for _, value, _ in shown])
            bounds = np.array([bound for _, _, bound in shown]).reshape(-1, 2)
            axes.errorbar(
                values, [line + step * (place - (len(series) - 1) / 2) for line, _, _ in shown],
                xerr=np.maximum([values - bounds[:, 0], bounds[:, 1] - values], 0), fmt="o", markersize=5, capsize=3,
                elinewidth=1.4, color=COLOURS[colour], label=plain(label),
            )  # fmt: skip
        axes.set_yticks(range(len(lines)), list(map(plain, lines)))
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(axis="y", visible=False)
        axes.legend(ncols=min(3, len(series)), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return svg(name, draw, 6.4, 0.9 + 0.21 * max(2, len(series)) * len(lines))
