"""The statistics of masks as PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ifguide.pages.text import visible
from ifguide.system.files import atomic_path

_INK, _FAINT = "#1c2128", "#d8dde3"
_COLOURS = ("#0b7d8c", "#c4701f", "#7a3fb0", "#c0263a", "#4a78b5", "#6e7781")
_NAMED_TOKENS = 15
_SHARES = ["0", *(f"≤{high}" for high in range(10, 101, 10))]


def style(ink: str, faint: str) -> dict[str, Any]:
    """matplotlib's settings for every figure of this package, in these colours of text and of the grid."""
    return {
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=[ink]),
        "grid.linewidth": 0.6,
        "grid.color": faint,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink),
    }


def save_figures(folder: Path, result: dict[str, Any]) -> None:
    """Write ``documents.png``, ``positions.png``, ``tokens.png`` (of the first mask) and, for several masks of the
    same data, ``overlap.png``.

    Args:
        result: as `mask_stats.as_dict` makes it.
    """
    masks = result["masks"]
    _save(folder / "documents.png", lambda axes: _documents(axes, masks), 6.4, 3.4)
    _save(folder / "positions.png", lambda axes: _positions(axes, masks), 6.4, 3.4)
    if masks[0]["top_tokens"]:
        rows = masks[0]["top_tokens"][:_NAMED_TOKENS]
        _save(folder / "tokens.png", lambda axes: _tokens(axes, rows), 6.4, 0.9 + 0.26 * len(rows))
    if result["overlaps"]:
        _save(folder / "overlap.png", lambda axes: _overlap(axes, result), 4.8, 4.2)


def _documents(axes: Axes, masks: list[dict[str, Any]]) -> None:
    width = 0.85 / len(masks)
    for number, mask in enumerate(masks):
        places = np.arange(len(_SHARES)) + (number - (len(masks) - 1) / 2) * width
        axes.bar(places, mask["share_histogram"], 0.95 * width, label=_name(mask["mask"]), color=_colour(number))
    axes.set_xticks(range(len(_SHARES)), _SHARES)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("share of a document that is selected, %")
    axes.set_ylabel("documents")
    axes.grid(axis="x", visible=False)
    axes.legend()


def _positions(axes: Axes, masks: list[dict[str, Any]]) -> None:
    for number, mask in enumerate(masks):
        share = mask["position"]["share"]
        places = np.linspace(0, 100, len(share) + 1)
        axes.stairs(share, places, label=_name(mask["mask"]), color=_colour(number), linewidth=1.8, baseline=None)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("place in a document, % of its length")
    axes.set_ylabel("tokens selected there")
    axes.legend()


def _tokens(axes: Axes, rows: list[dict[str, Any]]) -> None:
    names = [str(row["id"]) if row["text"] is None else _quoted(row["text"]) for row in rows]
    bars = axes.barh(range(len(rows)), [row["selected"] for row in rows], color=_COLOURS[0], height=0.7)
    axes.bar_label(bars, [f"{row['selected'] / row['count']:.0%}" for row in rows], padding=4)
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("times selected; beside the bar, of all times that it occurs")


def _overlap(axes: Axes, result: dict[str, Any]) -> None:
    names = [mask["mask"] for mask in result["masks"]]
    table = np.full((len(names), len(names)), np.nan)
    for pair in result["overlaps"]:
        first, second = names.index(pair["first"]), names.index(pair["second"])
        table[first, second] = table[second, first] = np.nan if pair["jaccard"] is None else pair["jaccard"]
    axes.imshow(table, cmap="Purples", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            ink = "white" if value > 0.6 else _INK
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink)
    axes.set_xticks(range(len(names)), map(_name, names))
    axes.set_yticks(range(len(names)), map(_name, names))
    axes.grid(visible=False)
    axes.set_title("tokens in both, of those in either (Jaccard)", fontsize=10)


def _save(path: Path, draw: Callable[[Axes], None], width: float, height: float) -> None:
    settings: Any = {**style(_INK, _FAINT), "text.parse_math": False}  # a token may hold dollar signs
    with mpl.rc_context(settings), atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a script that matplotlib's font lacks shows as boxes
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(temporary, format="png", dpi=160, metadata={"Software": None})


def _name(prefix: str) -> str:
    return Path(prefix).name


def _quoted(text: str) -> str:
    return f"“{visible(text)}”".replace("\n", "⏎").replace("\t", "⇥")


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
