"""The plots of attacks as SVG in the colours of the page, one function a shape of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from ifguide.pages.environment import Html
from ifguide.pages.plots import COLOURS, colours_of, plain, svg

# where the scale of steps changes from linear to logarithmic
_LINEAR_STEPS = 10
_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        model: gives its colour.
        label: in the legend.
        steps, values: of its points.
        bounds: low and high end of each point's interval; None without intervals.
        style: 0 is a solid line.
    """

    model: str
    label: str
    steps: Sequence[float]
    values: Sequence[float]
    bounds: Sequence[Sequence[float]] | None = None
    style: int = 0


def curves(
    name: str, lines: Sequence[Line], models: Sequence[str], label: str, level: tuple[str, float] | None = None,
    unit: str = "steps", top: float | None = 1.02,
) -> Html:  # fmt: skip
    """Values over steps on a scale that is logarithmic from ten steps on; ``level``: a dashed line with its name."""
    colours = dict(zip(models, colours_of(models)))

    def draw(axes: Axes) -> None:
        for line in lines:
            colour = COLOURS[colours[line.model]]
            axes.plot(
                line.steps, line.values, label=plain(line.label), color=colour, marker="o", markersize=4,
                linestyle=_STYLES[line.style % len(_STYLES)],
            )  # fmt: skip
            if line.bounds is not None:
                low, high = np.array(line.bounds).T
                axes.fill_between(line.steps, low, high, color=colour, alpha=0.15, linewidth=0)
        if level is not None:
            axes.axhline(level[1], color=COLOURS["ink"], linestyle=":", linewidth=1.2, label=plain(level[0]))
        steps = sorted({step for line in lines for step in line.steps})
        axes.set_xscale("symlog", linthresh=_LINEAR_STEPS)
        if len(steps) <= 8:
            axes.set_xticks(steps, [f"{step:g}" for step in steps])
            axes.set_xticks([], minor=True)
        axes.set_xlim(left=0)
        axes.set_ylim(0, top)
        axes.set_xlabel(unit)
        axes.set_ylabel(label)
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return svg(name, draw, 6.4, 3.4)


def whiskers(
    name: str, rows: Mapping[str, tuple[float, Sequence[float], str]], label: str, low: float = -0.02,
    high: float | None = 1.02, line: float | None = None, legend: Sequence[tuple[str, str]] = (),
) -> Html:  # fmt: skip
    """A dot with its interval a row, from top to bottom: value, interval, and the name of its colour.

    Args:
        line: a vertical line there.
        legend: label and colour of each kind of dot.
    """

    def draw(axes: Axes) -> None:
        for place, (value, bounds, colour) in enumerate(rows.values()):
            error = np.maximum([[value - bounds[0]], [bounds[1] - value]], 0)
            axes.errorbar(
                [value], [place], xerr=error, fmt="o", markersize=5, capsize=3, elinewidth=1.4, color=COLOURS[colour]
            )
        for text, colour in legend:
            axes.plot([], [], "o", color=COLOURS[colour], label=plain(text))
        if line is not None:
            axes.axvline(line, color=COLOURS["ink"], linewidth=1.0, linestyle=":")
        axes.set_yticks(range(len(rows)), list(map(plain, rows)))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        if high is not None:
            axes.set_xlim(low, high)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        if legend:
            axes.legend(ncols=min(3, len(legend)), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return svg(name, draw, 6.4, 1.0 + 0.27 * len(rows))


def stacked(name: str, rows: Mapping[str, Sequence[float]], parts: Sequence[tuple[str, str]], label: str) -> Html:
    """Shares that add up to 1, a bar a row; ``parts``: label and colour of each."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))
        begun = np.zeros(len(rows))
        for number, (text, colour) in enumerate(parts):
            values = np.array([row[number] for row in rows.values()])
            axes.barh(places, values, left=begun, height=0.7, color=COLOURS[colour], label=plain(text))
            begun += values
        axes.set_yticks(places, list(map(plain, rows)))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        axes.legend(ncols=min(4, len(parts)), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return svg(name, draw, 6.4, 1.1 + 0.32 * len(rows))
