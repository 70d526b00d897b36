"""Plots of an experiment: toxicity against perplexity, and curves over settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes

from ifguide.pages.environment import Html
from ifguide.pages.plots import COLOURS, colours_of, plain, svg

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_MOST_LABELS = 24
Points = Sequence[tuple[float, float, str]]


def marks_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method; both together tell more of them apart than there are colours."""
    markers = cycle(_MARKERS)
    found: dict[str, tuple[str, str]] = {}
    used: set[tuple[str, str]] = set()
    for name, colour in zip(names, colours_of(names)):
        marker = next(markers)
        while (colour, marker) in used and len(used) < len(_MARKERS) * len(COLOURS):
            marker = next(markers)
        used.add((colour, marker))
        found[name] = (colour, marker)
    return found


def trade_plot(methods: Mapping[str, Mapping[str, Any]], toxicity: str, fluency: str) -> Html | None:
    """``toxicity`` against ``fluency``, one point a method and seed; the logarithm of a perplexity tells more."""
    points = {
        name: [
            (numbers[fluency], numbers[toxicity])
            for numbers in entry["seeds"].values()
            if _is_number(numbers.get(fluency)) and _is_number(numbers.get(toxicity))
        ]
        for name, entry in methods.items()
    }
    points = {name: found for name, found in points.items() if found}
    if not points:
        return None
    marks = marks_of(list(points))

    def draw(axes: Axes) -> None:
        for name, found in points.items():
            colour, marker = marks[name]
            x, y = zip(*found)
            axes.plot(x, y, marker, color=COLOURS[colour], label=plain(name), markersize=7, alpha=0.85)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:.4g}")
        axes.xaxis.set_minor_formatter("{x:.4g}")
        axes.tick_params(axis="x", which="both", rotation=30)
        axes.set_xlabel(f"{fluency.replace('@', ' of ')} (lower is better)")
        axes.set_ylabel(f"{toxicity.replace('_', ' ')} (lower is better)")
        if len(points) <= _MOST_LABELS:
            axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)

    return svg(f"trade-{toxicity}-{fluency}", draw, 6.4, 4.6)


def curve_names(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sweeps of the plan."""
    return list(dict.fromkeys(entry["curve"]["name"] for entry in methods.values() if entry["curve"]))


def curve_plot(methods: Mapping[str, Mapping[str, Any]], curve: str, metric: str) -> Html | None:
    """A metric's mean over the values of a sweep, one line a method, with its intervals."""
    lines: dict[str, list[tuple[Any, float, Sequence[float] | None]]] = {}
    for entry in methods.values():
        if entry["curve"] and entry["curve"]["name"] == curve and metric in entry["mean"]:
            point = (entry["curve"]["value"], entry["mean"][metric], entry["interval"].get(metric))
            lines.setdefault(_whose(entry, methods), []).append(point)
    if not lines:
        return None
    values = list(dict.fromkeys(value for line in lines.values() for value, *_ in line))
    is_numeric = all(map(_is_number, values))
    places = {str(value): float(value) if is_numeric else float(at) for at, value in enumerate(values)}
    marks = marks_of(list(lines))

    def draw(axes: Axes) -> None:
        for name, line in lines.items():
            colour, marker = marks[name]
            line = sorted(line, key=lambda point: places[str(point[0])])
            x = [places[str(value)] for value, *_ in line]
            y = [mean for _, mean, _ in line]
            errors = [
                [max(0.0, mean - bounds[0]) if bounds else 0.0 for _, mean, bounds in line],
                [max(0.0, bounds[1] - mean) if bounds else 0.0 for _, mean, bounds in line],
            ]
            axes.errorbar(
                x, y, yerr=errors, marker=marker, color=COLOURS[colour], capsize=3, elinewidth=1.2, label=plain(name)
            )
        if not is_numeric:
            axes.set_xticks(range(len(values)), [plain(str(value)) for value in values])
        axes.set_xlabel(plain(curve))
        axes.set_ylabel(plain(metric.replace("_", " ").replace("@", " of ")))
        axes.legend()

    return svg(f"curve-{curve}-{metric}", draw, 6.4, 3.4)


def _whose(entry: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> str:
    """The method of a point, with its corpus where there are several."""
    several = len({one["corpus"] for one in methods.values()}) > 1
    return f"{entry['corpus']}/{entry['method']}" if several else entry["method"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
