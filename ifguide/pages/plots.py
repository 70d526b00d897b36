"""The page's plots as inline SVG whose colours come from the page's style sheet.

matplotlib writes fixed colours; a page that is light or dark needs variables. So every colour is drawn
as a placeholder and replaced by ``var(--name)`` in the finished SVG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ifguide.pages.environment import SERIES, Html, colours_of
from ifguide.pages.evaluation_table import number
from ifguide.pages.quickstart_data import Curve, TokenMarks
from ifguide.pages.table import models_of
from ifguide.pages.text import visible

COLOURS = {name: f"#0102{number:02x}" for number, name in enumerate(("ink", "faint", *SERIES), 0x10)}
_GROUPS = (
    ("emt_toxic", "EMT toxic"),
    ("tp_toxic", "TP toxic"),
    ("emt_benign", "EMT benign"),
    ("tp_benign", "TP benign"),
)
_BINS = 120
_LONGEST_LABEL = 40
_LEGEND_CHARACTERS = 66  # of a line of the legend, with the marks before the labels
_TEXT_SIZE = 11.5  # points: beside the page's own text where two figures stand side by side


def toxicity_plot(results: dict[str, Any]) -> Html:
    """EMT and TP of each model on toxic and benign prompts, with 95% intervals."""

    models = models_of(results)

    def draw(axes: Axes) -> None:
        width = 0.78 / len(models)
        for place, (name, colour) in enumerate(zip(models, colours_of(models))):
            values = np.array([results[name][key] for key, _ in _GROUPS])
            bounds = np.array([results[name][f"{key}_interval"] for key, _ in _GROUPS]).T
            errors = np.maximum([values - bounds[0], bounds[1] - values], 0)
            axes.bar(
                np.arange(len(_GROUPS)) + (place - (len(models) - 1) / 2) * width, values, 0.9 * width,
                label=plain(name), color=COLOURS[colour], yerr=errors,
                error_kw={"ecolor": COLOURS["ink"], "elinewidth": 1.2, "capsize": 3},
            )  # fmt: skip
        axes.set_xticks(range(len(_GROUPS)), [label for _, label in _GROUPS])
        axes.set_ylim(0, 1.02)
        axes.grid(axis="x", visible=False)
        axes.legend(ncols=legend_columns(models), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return svg("toxicity", draw, 6.4, 3.4)


def perplexity_plot(results: dict[str, Any]) -> Html:
    """Perplexity of held-out clean text of each model, with 95% intervals over texts where they are known."""
    values = {name: results[name]["perplexity"] for name in models_of(results)}
    colours = [COLOURS[colour] for colour in colours_of(list(values))]
    known = [results[name].get("perplexity_interval") for name in values]
    height = 0.7 + 0.4 * len(values)

    def draw(axes: Axes) -> None:
        _named_bars(axes, values, number, colours, known)

    return svg("perplexity", draw, 6.4, height)


def seconds_plot(seconds: dict[str, float]) -> Html:
    """Seconds of each stage, in the order in which they ran."""
    height = 0.7 + 0.28 * len(seconds)
    return svg("seconds", lambda axes: _named_bars(axes, seconds, "{:.0f} s".format, COLOURS["other"]), 6.4, height)


def scores_plot(marks: TokenMarks, threshold: float | None) -> Html:
    """Histogram of the scores on a logarithmic scale, planted and other tokens apart where that is known."""

    def draw(axes: Axes) -> None:
        groups = {"all tokens": (marks.scores, "other")}
        if marks.planted is not None:
            groups = {
                "planted tokens": (marks.scores[marks.planted], "planted"),
                "other tokens": (marks.scores[~marks.planted], "other"),
            }
        edges = np.histogram_bin_edges(marks.scores, _BINS)
        for label, (values, colour) in groups.items():
            counts, _ = np.histogram(values, edges)
            axes.stairs(counts, edges, label=label, color=COLOURS[colour], linewidth=1.5, baseline=None)
        if threshold is not None:
            label = f"τ = {threshold:.3g}"
            axes.axvline(threshold, color=COLOURS["accent"], linestyle="--", linewidth=1.4, label=label)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.set_xlabel("score of a token (positive: learning it makes the model more toxic)")
        axes.set_ylabel("tokens")
        axes.legend()

    return svg("scores", draw, 6.4, 3.4)


def curves_plot(name: str, label: str, curves: dict[str, Curve], models: Sequence[str]) -> Html:
    """One quantity over the iterations of each run; ``models`` are all of the page, for the colours."""
    colours = dict(zip(models, colours_of(models)))

    def draw(axes: Axes) -> None:
        for model, curve in curves.items():
            axes.plot(
                curve.iterations, curve.values, label=plain(model), color=COLOURS[colours[model]],
                linestyle="--" if model == "control" else "-",
            )  # fmt: skip
        axes.set_xlabel("iteration")
        axes.set_ylabel(label)
        axes.legend()

    return svg(name, draw, 6.4, 3.2)


def _named_bars(
    axes: Axes, values: dict[str, float], written: Callable[[float], str], colours: Any,
    intervals: Sequence[Sequence[float] | None] = (),
) -> None:  # fmt: skip
    bars = axes.barh(list(map(plain, values)), list(values.values()), color=colours, height=0.7)
    ends = list(values.values())
    for place, bounds in enumerate(intervals):
        if bounds:
            axes.errorbar(
                sum(bounds) / 2, place, xerr=(bounds[1] - bounds[0]) / 2, fmt="none", ecolor=COLOURS["ink"],
                elinewidth=1.2, capsize=3,
            )  # fmt: skip
            ends[place] = max(ends[place], bounds[1])
    for bar, value, end in zip(bars, values.values(), ends):
        axes.annotate(
            written(value), (end, bar.get_y() + bar.get_height() / 2), (5, 0), textcoords="offset points",
            va="center", color=COLOURS["ink"],
        )  # fmt: skip
    axes.invert_yaxis()
    axes.set_xlim(0, max(ends, default=0) * 1.18 or 1)
    axes.grid(axis="y", visible=False)


def svg(name: str, draw: Any, width: float, height: float) -> Html:
    """Draw one figure; ``name`` keeps the ids of two figures on one page apart."""
    settings: Any = {**_style(COLOURS["ink"], COLOURS["faint"]), "svg.hashsalt": name}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # would hold for the whole page
    text = re.sub(r'<g id="[^"]*">', "<g>", text).replace("xlink:href", "href")  # group ids repeat in every figure
    for variable, placeholder in COLOURS.items():
        text = text.replace(placeholder, f"var(--{variable})")
    return Html(text)


def legend_columns(labels: Sequence[str]) -> int:
    """How many labels stand beside each other without leaving the figure."""
    longest = max((min(len(label), _LONGEST_LABEL) for label in labels), default=1)
    return max(1, min(3, len(labels), _LEGEND_CHARACTERS // (longest + 6)))


def plain(label: str) -> str:
    """Safe in an SVG, not too long for a legend, and nothing that matplotlib reads otherwise: _ first, or a $."""
    label = visible(label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…").replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def _style(ink: str, faint: str) -> dict[str, Any]:
    """matplotlib's settings for every figure, in these colours of text and of the grid."""
    return {
        "svg.fonttype": "none",
        "font.size": _TEXT_SIZE,
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
