"""Grouped bars as SVG without a plotting library; colours are classes of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from ifguide.pages.environment import Html
from ifguide.pages.text import visible

_WIDTH, _HEIGHT = 640, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 10, 12, 46  # of the axes, from the picture's edges
_TICKS = 5


@dataclass(frozen=True)
class Series:
    """One bar in each group: its name, its colour (a class of the style sheet), and its heights."""

    name: str
    colour: str
    values: Sequence[float]


def bars(
    title: str, groups: Sequence[str], series: Sequence[Series], across: str, up: str,
    written: Callable[[float], str], logarithmic: bool = False,
) -> Html:  # fmt: skip
    """Groups of bars that begin at 0.

    Args:
        title: what the picture shows, for those who hear it.
        groups: the name under each group.
        series: the bars of every group.
        across, up: what the axes say.
        written: how a height is written, at the axis and where the pointer rests.
        logarithmic: heights by log(1 + value), so that a group with few shows beside one with many.
    """
    scale: Callable[[float], float] = math.log1p if logarithmic else float
    most = max((value for one in series for value in one.values), default=0)
    marks = _decades(most) if logarithmic else _round_marks(most)
    top = max(scale(marks[-1]), 1e-12)
    floor = _HEIGHT - _BOTTOM

    def height(value: float) -> float:
        return (floor - _TOP) * scale(value) / top

    parts = []
    for mark in marks:
        y = f"{floor - height(mark):.1f}"
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 8, f"{floor - height(mark) + 4:.1f}", written(mark), "end"))
    each = (_WIDTH - _LEFT - _RIGHT) / max(1, len(groups))
    width = 0.84 * each / max(1, len(series))
    for place, group in enumerate(groups):
        begin = _LEFT + each * (place + 0.08)
        for number, one in enumerate(series):
            value = one.values[place]
            parts.append(
                f'<rect class="{one.colour}" x="{begin + number * width:.1f}" y="{floor - height(value):.1f}" '
                f'width="{0.94 * width:.1f}" height="{height(value):.1f}">'
                f"<title>{_safe(f'{one.name}, {group}: {written(value)}')}</title></rect>"
            )
        parts.append(_text(f"{_LEFT + each * (place + 0.5):.1f}", floor + 18, group, "middle"))
    parts.append(f'<path class="axis" d="M{_LEFT} {floor}H{_WIDTH - _RIGHT}"/>')
    parts.append(_text(f"{(_LEFT + _WIDTH - _RIGHT) / 2:.1f}", _HEIGHT - 6, across, "middle"))
    middle = f"{(_TOP + floor) / 2:.1f}"
    parts.append(_text(14, middle, up, "middle", f' transform="rotate(-90 14 {middle})"'))
    size = f"0 0 {_WIDTH} {_HEIGHT}"
    return Html(f'<svg class="bars" viewBox="{size}" role="img" aria-label="{_safe(title)}">{"".join(parts)}</svg>')


def _round_marks(most: float) -> list[float]:
    """0, and multiples of 1, 2 or 5 times a power of ten up to ``most`` or just above."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def _decades(most: float) -> list[float]:
    """0, 1, 10, 100 ... up to ``most`` or just above."""
    return [0.0, *(10.0**power for power in range(math.ceil(math.log10(max(most, 1))) + 1))]


def _text(x: object, y: object, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    return escape(visible(text))
