"""What an analysis found, as plain values: a verdict in words, a figure to draw, and what it rests on.

A finding goes into results.json as it is, and `ifguide.pages.analysis` draws it; several folders on one page are their
findings one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.statistics.resampling import bootstrap, interval, statistic

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Finding = dict[str, Any]


def finding(name: str, verdict: Sequence[str], figure: Mapping[str, Any], *, sure: bool | None = None) -> Finding:
    """
    Args:
        name: short, unlike those of the other findings of an analysis.
        verdict: sentences made from the numbers, with their intervals; one for each model.
        sure: whether the interval of what the verdict says excludes nothing at all; None where it claims nothing.
    """
    return {"name": name, "verdict": list(verdict), "figure": dict(figure), "sure": sure}


def series(
    label: str, values: Sequence[float | None], intervals: Sequence[Interval | None] | None = None, *,
    model: str | None = None, dashed: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """One line of a figure; ``model`` gives it its colour, and None is not drawn."""
    return {
        "label": label,
        "values": [None if value is None else float(value) for value in values],
        "intervals": None if intervals is None else [None if one is None else [*map(float, one)] for one in intervals],
        "model": model or label,
        "dashed": dashed,
    }


def lines(
    x: Sequence[float], drawn: Sequence[Mapping[str, Any]], x_label: str, y_label: str, *,
    limits: Sequence[float] | None = None, level: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Curves over ``x``, with bands; ``limits`` of the axis, ``level`` a line to hold them against."""
    return {
        "kind": "lines", "x": list(x), "series": [dict(one) for one in drawn], "x_label": x_label, "y_label": y_label,
        "limits": None if limits is None else list(limits), "level": level,
    }  # fmt: skip


def dots(
    rows: Sequence[str], drawn: Sequence[Mapping[str, Any]], x_label: str, *, level: float | None = None
) -> dict[str, Any]:
    """Values with whiskers, one line a row and one colour a series."""
    return {"kind": "dots", "rows": list(rows), "series": [dict(one) for one in drawn], "x_label": x_label,
            "level": level}  # fmt: skip


def heat(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], *, full: float, form: str,
    corner: str,
) -> dict[str, Any]:  # fmt: skip
    """A table whose cells are coloured, ``full`` with the full colour; ``form`` prints a value."""
    return {"kind": "heat", "rows": list(rows), "columns": list(columns), "values": [list(row) for row in values],
            "full": full, "form": form, "corner": corner}  # fmt: skip


def quote(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Abusive text, which a page shows after a click."""
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}


class Sampled:
    """Means of several quantities over the same units (prompts, texts), resampled together.

    Args:
        pairs: ``[P, C, 2]``: of each unit and column the sum and what it is divided by.
    """

    def __init__(self, pairs: Floats, resamples: int, seed: int):
        self.values = np.array([statistic(pairs[:, column], "mean") for column in range(pairs.shape[1])])
        self.draws = bootstrap(pairs, "mean", resamples, seed)

    def interval(self, column: int) -> Interval:
        """95 %, of the column's mean."""
        return interval(self.draws[:, column])

    def difference(self, first: int, second: int) -> tuple[float, Interval]:
        """Of two columns' means, first - second, with its interval."""
        return (
            float(self.values[first] - self.values[second]),
            interval(self.draws[:, first] - self.draws[:, second]),
        )


def bounds_of(given: Sequence[float]) -> Interval:
    """A pair that JSON gave back as a list."""
    return given[0], given[1]


def is_sure(bounds: Interval) -> bool:
    """Whether an interval excludes 0."""
    return not bounds[0] <= 0 <= bounds[1]


def said(value: float, bounds: Interval | None = None, digits: int = 3) -> str:
    """``0.123 [0.101, 0.145]``."""
    text = f"{value:.{digits}g}"
    return text if bounds is None else f"{text} [{bounds[0]:.{digits}g}, {bounds[1]:.{digits}g}]"


def layer_names(count: int) -> list[str]:
    """Of x_0 to x_L."""
    return ["embedding", *(str(layer) for layer in range(1, count))]
