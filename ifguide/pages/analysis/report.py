"""The page of one analysis, and of several: a plot and a verdict for each finding, all else folded.

What a page shows is what results.json holds; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifguide.pages.analysis.meanings import MEANINGS, TITLES
from ifguide.pages.analysis.plots import figure_of, token_map
from ifguide.pages.environment import Html, element, heads, join, page, pairs, plotted, scrolling, swatched, warning
from ifguide.pages.plots import colours_of
from ifguide.pages.text import said


def analysis_page(results: Mapping[str, Any]) -> str:
    """The page of one folder; ``results``: what its ``results.json`` holds."""
    return _page(f"{_title(results)}", [results])


def findings_page(several: Sequence[Mapping[str, Any]]) -> str:
    """The page of several folders, one after the other.

    Args:
        several: what each ``results.json`` holds, with its ``folder``.
    """
    return _page("What is inside", several)


def _page(title: str, several: Sequence[Mapping[str, Any]]) -> str:
    labels = list(dict.fromkeys(model["label"] for results in several for model in results["models"]))
    scorers = [results.get("scorer") or {} for results in several]
    warnings = list(dict.fromkeys(scorer["warning"] for scorer in scorers if scorer.get("warning")))
    has_quotes = any(results.get("quotes") or results.get("maps") for results in several)
    return page(
        f"IF-Guide: {title}",
        element(
            "main",
            element("h1", title),
            element("p", [join(swatched(label, colour), " ") for label, colour in zip(labels, colours_of(labels))]),
            warning(
                "Content warning.",
                "Some sections of this page quote insults. They stay closed until you open them.",
            )
            if has_quotes
            else None,
            [warning("Not a measurement.", f"{line}.") for line in warnings],
            [_section(place, results, labels, len(several) > 1) for place, results in enumerate(several, start=1)],
        ),
        drawn=True,
    )


def _section(place: int, results: Mapping[str, Any], labels: Sequence[str], several: bool) -> Html:
    plots: list[tuple[Html, Html]] = []
    tables: list[tuple[Html, Html]] = []
    for finding in results["findings"]:
        drawn = figure_of(f"{place}-{finding['name']}", finding["figure"], labels)
        sentences = join(element("p", sentence) for sentence in finding["verdict"])
        (tables if finding["figure"]["kind"] == "heat" else plots).append((sentences, drawn))
    where = results.get("folder")
    return join(
        element("h2", _title(results), id=f"analysis-{place}") if several else None,
        element("p", element("small", Path(where).name)) if several and where else None,
        plotted(plots) if plots else None,
        [element("figure", element("figcaption", text), table) for text, table in tables],
        [_quoted(quote) for quote in results.get("quotes", [])],
        _maps(results.get("maps", [])),
        element(
            "details",
            element("summary", "What this measures, and what it cannot tell"),
            element("dl", [[element("dt", key), element("dd", text)] for key, text in _meanings(results).items()]),
        ),
        element(
            "details",
            element("summary", "Settings and record"),
            element("div", [pairs(key, values) for key, values in _record(results).items()], class_="columns"),
        ),
    )


def _title(results: Mapping[str, Any]) -> str:
    return TITLES.get(results.get("what", ""), results.get("what", "Findings"))


def _meanings(results: Mapping[str, Any]) -> Mapping[str, str]:
    return {**MEANINGS.get(results.get("what", ""), {}), **MEANINGS["all"]}


def _quoted(quote: Mapping[str, Any]) -> Html:
    """A table of abusive text, behind a click."""
    rows = [
        element("tr", [element("td", cell if cell.strip() else element("em", "(no text)"), dir="auto") for cell in row])
        for row in quote["rows"]
    ]
    table = element("table", heads(*quote["columns"]), element("tbody", rows), class_="said")
    return element(
        "details",
        element("summary", f"Show: {quote['title']} (abusive text)"),
        scrolling(table, aria_label=quote["title"]),
        class_="abuse",
    )


def _maps(maps: Sequence[Mapping[str, Any]]) -> Html | None:
    """The maps of one prompt together, behind a click."""
    if not maps:
        return None
    by_prompt: dict[int, list[Mapping[str, Any]]] = {}
    for entry in maps:
        by_prompt.setdefault(entry["prompt"], []).append(entry)
    return join(
        element(
            "details",
            element("summary", f"Show prompt {number + 1}, token by layer (may be abusive)"),
            element(
                "p", "Red: the probe takes it for toxic; blue: for safe; no colour: it cannot tell.", class_="note"
            ),
            [token_map(entry) for entry in some],
            class_="abuse",
        )
        for number, some in sorted(by_prompt.items())
    )


def _record(results: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    tables = {
        f"Model {model['label']}": {"folder": model["path"], "hash": model["identity"][:16]}
        for model in results["models"]
    }
    tables["Settings"] = {key: said(value) for key, value in results.get("settings", {}).items()}
    tables["Inputs"] = {key: said(value.get("path")) for key, value in results.get("inputs", {}).items()}
    if results.get("scorer"):
        tables["Scorer"] = {key: said(value) for key, value in results["scorer"].items()}
    tables["Versions"] = {key: said(value) for key, value in results.get("versions", {}).items()}
    machine = results.get("machine") or {}
    tables["Run"] = {
        "started": said(results.get("started")),
        "seconds": said(results.get("seconds")),
        "machine": f"{machine.get('processor')}, {machine.get('cores')} cores",
        "revision": said(results.get("revision")),
        "command": " ".join(results.get("command") or []),
    }
    return {key: values for key, values in tables.items() if values}
