"""Pages of findings: hostile names and texts become markup nowhere, and abuse stays behind a click."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from ifguide.analysis.findings import dots, finding, heat, lines, quote, series
from ifguide.pages.analysis.meanings import MEANINGS, TITLES
from ifguide.pages.analysis.plots import figure_of
from ifguide.pages.analysis.report import analysis_page, findings_page


class Names(HTMLParser):
    """Every tag and every attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


HOSTILE = '</style></td><script>alert(1)</script><img src=x onerror=alert(2)> $\\bad$ "a" \x00\u202e'


def results(**more: Any) -> dict[str, Any]:
    curve = series(HOSTILE, [0.1, None, 0.3], [(0.0, 0.2), None, (0.2, 0.4)])
    return {
        "kind": "ifguide-analysis", "what": "probe",
        "models": [{"label": label, "path": HOSTILE, "identity": "ab" * 16} for label in ("base", HOSTILE)],
        "settings": {"seed": 0}, "inputs": {}, "scorer": {"name": HOSTILE, "warning": "it counts words"},
        "findings": [
            finding("one", [f"A {HOSTILE}.", "B."],
                    lines([0, 1, 2], [curve], "layer", HOSTILE, level=0.5, limits=(0, 1))),
            finding("two", ["C."], dots(["a", HOSTILE, "c"], [curve], "x", level=0.0), sure=True),
            finding("three", ["D."], heat(["r"], ["c", HOSTILE], [[0.5, None]], full=1.0, form=".2f", corner="|ΔW|")),
        ],
        "quotes": [quote(f"worst {HOSTILE}", ["text"], [[f"vile {HOSTILE}"], [""]])],
        "maps": [{"prompt": 0, "model": HOSTILE, "probe": "own", "tokens": ["a", HOSTILE, " \n"],
                  "values": [[0.0, 0.5, 1.0]] * 3}],
        **more,
    }  # fmt: skip


@pytest.mark.parametrize("page", [analysis_page(results()), findings_page([results(folder=HOSTILE), results()])])
def test_nothing_of_a_name_or_a_text_becomes_markup(page: str) -> None:
    assert "<script" not in page and "<img" not in page and "\x00" not in page and "\u202e" not in page
    assert page.count("<style>") == 1 and page.count("</style>") == 1
    assert "onerror=alert(2)&gt;" in page
    seen = Names()
    seen.feed(page)
    assert not [name for name in seen.attributes if name.startswith("on")] and "img" not in seen.tags


def test_a_verdict_stands_over_its_plot_and_abuse_in_a_closed_box() -> None:
    page = analysis_page(results())
    figures = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(figures) == 3 and sum("<svg" in one for one in figures) == 2
    assert figures[0].index("<p>B.</p>") < figures[0].index("<svg")
    without_boxes = re.sub(r'<details class="abuse">.*?</details>', "", page, flags=re.DOTALL)
    assert "vile" in page and "vile" not in without_boxes and 'class="map"' not in without_boxes
    assert "<details open" not in page
    # of a cell: the strongest red and blue, and none between them
    (table,) = re.findall(r'<table class="map">.*?</table>', page, re.DOTALL)
    assert re.findall(r'<td(?: class="(\w+)")? title', table) == ["n10", "", "p10"] * 3
    assert page.index("<svg") < page.index("What this measures") < page.index("Settings and record")
    assert "Not a measurement." in page and "it counts words" in page


def test_models_have_one_colour_on_a_page() -> None:
    models = ["base", "guided", "third"]
    drawn = [series(label, [0.1, 0.2], model=label) for label in reversed(models)]
    svg = figure_of("x", lines([0, 1], drawn, "x", "y"), models)
    colours = re.findall(r"stroke: var\(--(guided|base|control|other|accent|planted)\)", svg)
    assert set(colours) == {"base", "guided", "control"}
    kinds = [series(name, [0.5], [(0.4, 0.6)], model=name) for name in ("as it is", "scaled")]
    svg = figure_of("y", dots(["base"], kinds, "EMT"), models)
    assert "var(--base)" in svg and "var(--guided)" in svg
    kinds = [series(name, [0.5], [(0.4, 0.6)], model=name) for name in ("scaled", "base", "scaled")]
    svg = figure_of("y", dots(["base"], kinds, "EMT"), models)
    drawn_in = set(re.findall(r"var\(--(\w+)\)", svg)) - {"ink", "faint"}
    assert drawn_in == {"base", "guided"}, "the same name twice has one colour, and not that of a model beside it"
    with pytest.raises(ValueError, match="kind pie"):
        figure_of("z", {"kind": "pie", "series": []}, models)


def test_every_analysis_is_explained() -> None:
    from ifguide.analysis.options import ANALYSES

    assert TITLES.keys() == ANALYSES.keys() and MEANINGS.keys() == {*ANALYSES, "all"}
