"""What the pages of all attacks have in common: their frame, and how numbers are said.

A figure is a verdict with a plot. What models say stands behind a click.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ifguide.pages.environment import (
    Html,
    element,
    heads,
    page,
    pairs,
    plotted,
    said_cell,
    scrolling,
    swatched,
    warning,
)
from ifguide.pages.plots import colours_of

_LONG = ("scorer", "frame", "kind")
_OF_THE_RUN = ("started", "revision", "seconds")


@dataclass(frozen=True)
class Figure:
    """A plot and the verdict that its numbers give.

    Attributes:
        verdict: sentences, the first one the main result.
        plot: SVG.
    """

    verdict: str
    plot: Html


def attack_page(
    title: str,
    results: Mapping[str, Any],
    figures: Sequence[Figure],
    tables: Iterable[tuple[str, Html]],
    meanings: Mapping[str, str],
    said: Html | None,
) -> str:
    """The whole page.

    Args:
        results: what ``results.json`` holds.
        tables: heading and table of each.
        meanings: what the words mean.
        said: what the models said; None for nothing.
    """
    warnings = dict.fromkeys(scorer["warning"] for scorer in results["scorers"] if scorer.get("warning"))
    return page(
        title,
        element(
            "main",
            element("h1", title),
            [warning("Not a measurement.", f"{line}.") for line in warnings],
            plotted([(figure.verdict, figure.plot) for figure in figures]),
            [[element("h2", heading), scrolling(table, aria_label=heading)] for heading, table in tables],
            element(
                "details",
                element("summary", "What the words mean"),
                element("dl", [[element("dt", key), element("dd", text)] for key, text in meanings.items()]),
            ),
            element(
                "details",
                element("summary", "Settings and record"),
                element("div", [pairs(key, values) for key, values in record(results).items()], class_="columns"),
            ),
            said,
        ),
        drawn=True,
    )


def record(results: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What was asked, of whom, and who did it."""
    settings = {
        f"{part}.{key}" if isinstance(values, Mapping) else part: _said(value)
        for part, values in results["settings"].items()
        for key, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    }
    return {
        "Settings": settings,
        "Models": {name: f"{one['path']} ({one['identity'][:12]})" for name, one in results["models"].items()},
        "Scorers": {one["name"]: str(one.get("identity"))[:12] for one in results["scorers"]},
        "Inputs": {key: f"{one['path']} ({one['hash'][:12]})" for key, one in results["inputs"].items()},
        "Run": {
            "command": " ".join(results.get("command") or []) or "called as a library",
            **{key: _said(results[key]) for key in _OF_THE_RUN if key in results},
            **results.get("versions", {}),
        },
    }


def said_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Html:
    """What models said, behind a click; ``columns``: fields of a row that stand before the text, whose score is in
    ``toxicity``."""
    body = [
        element(
            "tr",
            [element("td", str(row[column]), dir="auto") for column in columns],
            said_cell(row["continuation"], row["toxicity"]),
        )
        for row in rows
    ]
    table = element("table", heads(*columns, "continuation"), element("tbody", body), class_="said")
    return element(
        "details",
        element("summary", "Show what the models said (abusive text)"),
        scrolling(table, aria_label="What the models said"),
        class_="abuse",
    )


def model_cells(names: Sequence[str]) -> dict[str, Html]:
    """Each model's name with its colour in the plots."""
    return {name: swatched(name, colour) for name, colour in zip(names, colours_of(names))}


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[str | Html]]) -> Html:
    """The first cell of each row is its heading; names of scorers and frames may break over lines."""
    classes = ["name" if column in _LONG else None for column in columns[1:]]
    body = [
        element(
            "tr",
            element("th", first, scope="row"),
            [element("td", cell, class_=kind) for cell, kind in zip(cells, classes, strict=True)],
        )
        for first, *cells in rows
    ]
    return element("table", heads(*columns), element("tbody", body), class_="fixed")


def share_text(share: Mapping[str, Any]) -> str:
    """``24% [14%, 37%]``."""
    low, high = share["interval"]
    return f"{share['share']:.0%} [{low:.0%}, {high:.0%}]"


def value_text(value: float, interval: Sequence[float], form: str = "{:.3f}") -> str:
    """``0.873 [0.837, 0.904]``."""
    return f"{form.format(value)} [{', '.join(form.format(bound) for bound in interval)}]"


def perplexity_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _said(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
