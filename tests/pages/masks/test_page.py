"""The page about masks in a real browser: nothing clipped, hostile text inert, long names, light, dark and printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ifguide.pages.masks.bars import Series, bars
from ifguide.pages.masks.page import mask_stats_page
from tests.browser import Tab, needs_browser, page_in_browser

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} $x$ \x00\u202e\n"


def mask(name: str, factor: int = 1) -> dict[str, Any]:
    return {
        "mask": name, "tokens": 1000, "selected": 100 * factor, "fraction": 0.1 * factor, "mean_strength": 1.0,
        "documents": 1, "documents_with_selection": 1, "share_histogram": [100_000, 2500, 3, 0, 0, 0, 0, 0, 0, 0, 1],
        "share_quantiles": {"0.25": 0.1, "0.5": 0.2, "0.75": 0.3, "0.99": 0.9},
        "position": {"share": [0.01 * factor * tenth for tenth in range(10)], "selected": [], "tokens": []},
        "top_tokens": [
            {"id": 1, "text": HOSTILE * 3, "selected": 50, "count": 200},
            {"id": 2, "text": "w" * 90, "selected": 5, "count": 5},
            {"id": 3, "text": None, "selected": 1, "count": 3},
        ],
        "top_phrases": [{"ids": [1, 2], "text": "a phrase", "count": 12}, {"ids": [7, 8], "text": None, "count": 2}],
        "phrase_counts_missed": 0, "scores": {"selected_mean": 12.345, "other_mean": -0.01},
    }  # fmt: skip


def result(count: int) -> dict[str, Any]:
    names = [f"runs/seed_{number}/a_mask_with_a_very_long_name_that_no_legend_has_room_for" for number in range(count)]
    pairs = [
        {"first": names[0], "second": other, "both": 10, "jaccard": 0.25, "of_first": 0.5, "of_second": None,
         "phi": 0.1}
        for other in names[1:]
    ]  # fmt: skip
    return {"masks": [mask(name, number + 1) for number, name in enumerate(names)], "overlaps": pairs}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with page_in_browser(mask_stats_page(result(5), ["a note"]), tmp_path_factory.mktemp("browser")) as tab:
        tab.open(tab.address)
        yield tab


def test_the_numbers_are_in_the_page() -> None:
    page = mask_stats_page(result(1))
    assert "100 of 1,000 tokens selected (10.00%), in 1 of 1 document." in page
    assert "Half of these have 20.0% or more of their tokens selected." in page
    assert "The mean score of the selected tokens is 12.3, of the others -0.0100." in page
    assert "Tokens (% = share of its occurrences)" in page
    assert "<td>50</td><td>25%</td>" in page and "<td>5</td><td>100%</td>" in page
    assert "[7, 8]" in page and ">3</th>" in page, "without a text the ids stand there"
    assert "Overlap" not in page and "Overlap" in mask_stats_page(result(2))
    assert ">undefined</td>" in mask_stats_page(result(2))


def test_the_source_is_safe_and_needs_nothing() -> None:
    page = mask_stats_page(result(2), [HOSTILE])
    assert "<script" not in page and "<img" not in page and page.count("</style>") == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page) and not re.search(r"https?://", page)
    assert "default-src 'none'" in page and "unsafe" not in page


def test_bars_are_as_high_as_their_numbers() -> None:
    drawn = bars("t", ["a", "b"], [Series("m", "base", [4.0, 2.0])], "x", "y", str)
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', drawn)]
    assert heights[0] == 2 * heights[1] > 100
    assert re.findall(r'text-anchor="end">([\d.]+)<', drawn) == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    drawn = bars("t", ["a", "b"], [Series("m", "base", [99.0, 9.0])], "x", "y", str, logarithmic=True)
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', drawn)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.1), "log(1 + 99) is twice log(1 + 9)"
    assert "<svg" in bars("t", ["a"], [Series("m", "base", [0.0])], "x", "y", str), "nothing selected"


@needs_browser
def test_nothing_is_clipped_at_any_width(tab: Tab) -> None:
    assert not tab.complaints and {*tab.requests} == {tab.address}
    tab.click("details.abuse summary")
    for width in (400, 800, 2000):
        tab.resize(width, 900)
        assert tab.run("document.documentElement.scrollWidth") <= width
        clipped = tab.run(
            """[...document.querySelectorAll('.bars text')].filter((text) => {
                const box = text.getBoundingClientRect(), svg = text.ownerSVGElement.getBoundingClientRect();
                return box.left < svg.left - 0.5 || box.right > svg.right + 0.5 || box.bottom > svg.bottom + 0.5;
            }).map((text) => text.textContent)"""
        )
        assert clipped == []
    for theme, bright in (("light", True), ("dark", False)):
        tab.prefer(theme)
        colour = tab.run("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", colour)[0]) > 128) == bright
    tab.prefer("light")


@needs_browser
def test_it_prints(tab: Tab, tmp_path: Path) -> None:
    tab.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
