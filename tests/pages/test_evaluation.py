"""The pages of `ifguide evaluate` and `ifguide compare` in a real browser, with hostile models, prompts and names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ifguide.pages.comparison import comparison_page
from ifguide.pages.evaluation import evaluation_page
from ifguide.pages.evaluation_table import comparison_table, number, results_table
from ifguide.pages.text import visible
from tests.browser import Tab, needs_browser, page_in_browser

HOSTILE = '</style></td><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} &amp; $\\bad$ "a" \x00\u202e'
SCORERS = ["lexicon", "hf:/<b>judge</b>#toxic"]
GROUPS = ("", "_toxic", "_nontoxic")


def rows() -> list[dict[str, Any]]:
    return [
        {
            "task": "ifguide_rtp", "id": number, "prompt": f"prompt {number} {HOSTILE}", "document": {}, "metrics": {},
            "continuations": [f"vile {number} {HOSTILE}", "", f"mild {number}"],
            "scores": {scorer: [0.9 - number / 100, 0.0, 0.1] for scorer in SCORERS},
        }
        for number in range(30)
    ]  # fmt: skip


def metrics() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for scorer in SCORERS:
        for place, group in enumerate(GROUPS):
            for name, value in (("emt", 0.61234 - 0.1 * place), ("tp", 0.5 - 0.1 * place)):
                entry = {"metric": name + group, "filter": scorer, "value": value, "stderr": 0.0123, "prompts": 30}
                entry |= {"interval": [value - 0.04, value + 0.03], "transform": "mean", "higher_is_better": False}
                found.append(entry)
    found.append(found[0] | {"metric": "emt_nobody", "value": None, "interval": None, "prompts": 0})
    found.append(found[0] | {"metric": "prompts", "value": 30.0, "interval": None, "higher_is_better": None})
    return found


def results() -> dict[str, Any]:
    setting = {
        "version": 1.0, "num_fewshot": 0, "repeats": 3, "generation": {"top_p": 0.9, "until": [HOSTILE]},
        "scorers": [{"name": scorer, "identity": None} for scorer in SCORERS],
    }  # fmt: skip
    toxicity = {
        "setting": setting,
        "data": {"source": "rtp.jsonl", "prompts": 30, "available": 1000, "hash": "ab" * 16},
        "metrics": metrics(),
        "texts": {"empty_share": 0.333, "distinct_2": 0.5},
        "agreement": [
            {
                "first": SCORERS[0],
                "second": SCORERS[1],
                "texts": 1090,
                "prompts": 30,
                "same": 0.9,
                "both": 40,
                "first_only": 1000,
                "second_only": 49,
                "neither": 1,
                "kappa": 0.61803,
                "interval": [0.5, 0.7],
                "disagreements": [{"id": 3, "text": 0, "scores": [0.87, 0.25]}],
            },
            {
                "first": SCORERS[1],
                "second": "c",
                "texts": 90,
                "prompts": 30,
                "same": 1.0,
                "both": 0,
                "first_only": 0,
                "second_only": 0,
                "neither": 90,
                "kappa": None,
                "interval": None,
                "disagreements": [],
            },
        ],
    }
    accuracy = metrics()[0] | {"metric": "acc", "filter": "none", "value": 0.75, "higher_is_better": True}
    lambada = {
        "setting": setting | {"scorers": [], "generation": None, "repeats": 1},
        "data": {"source": None, "prompts": 7, "available": 7, "hash": "cd" * 16},
        "metrics": [accuracy],
        "texts": None,
    }
    return {
        "model": {"path": f"/models/{HOSTILE.replace('/', '')}", "identity": "ef" * 16, "dtype": "float32", "seed": 1}
        | {"rad": None},
        "settings": {"tasks": ["ifguide_rtp", "lambada"], "limit": 30},
        "scorers": [{"name": scorer, "labels": ["toxic"]} for scorer in SCORERS],
        "tasks": {"ifguide_rtp": toxicity, "lambada": lambada},
        "versions": {"torch": "2"}, "started": "2025-01-01T00:00:00Z", "seconds": 1.0, "revision": None,
        "machine": {"processor": "x", "cores": 2}, "command": ["ifguide", "evaluate"],
    }  # fmt: skip


def comparison() -> dict[str, Any]:
    labels = ["_base", f"guided $\\x$ {HOSTILE}"]
    compared = []
    for entry in metrics()[:12]:
        pair = {
            "first": labels[0], "second": labels[1], "difference": 0.2, "interval": [0.1, 0.3],
            "share_first_better": 0.0, "differing_prompts": 25, "verdict": "second",
        }  # fmt: skip
        both = {"values": [entry["value"], entry["value"] - 0.2], "intervals": [entry["interval"], entry["interval"]]}
        compared.append(entry | both | {"pairs": [pair]})
    return {
        "models": [{"label": label, "folder": label, "model": label} for label in labels],
        "tasks": {"ifguide_rtp": compared},
        "samples": {"ifguide_rtp": {"prompts": 25, "available": 100, "seed": 3}},
        "warnings": [f"by words alone {HOSTILE}"],
        "left_out": ["lambada"],
        "resamples": 10_000,
        "seed": 0,
    }


def many_models(count: int) -> dict[str, Any]:
    """A comparison of models whose names are longer than any legend."""
    labels = [f"seed_{number}/guided_by_influence_with_a_very_long_name_{number}" for number in range(count)]
    compared = []
    for entry in metrics()[:12]:
        values = [entry["value"] - 0.01 * number for number in range(count)]
        pairs = [
            {"first": one, "second": other, "difference": 0.01 * (j - i), "interval": [0.01 * (j - i) - 0.02, 0.2],
             "share_first_better": 0.1, "differing_prompts": 9, "verdict": "second" if j - i > 2 else "unsure"}
            for (i, one), (j, other) in combinations(enumerate(labels), 2)
        ]  # fmt: skip
        bounds = [[value - 0.04, value + 0.03] for value in values]
        compared.append(entry | {"values": values, "intervals": bounds, "pairs": pairs})
    return comparison() | {
        "models": [{"label": label, "folder": label, "model": f"/models/{label}"} for label in labels],
        "tasks": {"ifguide_rtp": compared},
    }


def texts(count: int) -> dict[str, Any]:
    said = [[(f"worst of model {model} {HOSTILE}", 0.1 * model) for model in range(count)] for _ in range(2)]
    return {
        "ifguide_rtp": {"scorer": "lexicon", "prompts": 30, "rows": [{"prompt": HOSTILE, "said": one} for one in said]}
    }


PAGES = {
    "evaluation": lambda: evaluation_page(results(), {"ifguide_rtp": rows(), "lambada": []}),
    "comparison": lambda: comparison_page(comparison(), texts(2)),
}


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return PAGES[request.param]()


@pytest.fixture(scope="module")
def tab(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with page_in_browser(page, tmp_path_factory.mktemp("browser")) as tab:
        tab.resize(1200, 900)
        tab.open(tab.address)
        yield tab


def test_the_page_shows_how_far_the_judges_agree() -> None:
    said = PAGES["evaluation"]()
    start = said.index("How far the judges agree")
    section = said[start : said.index("<h2", start)]
    for shown in ("0.62", "[0.500, 0.700]", "90.0%", "1,000", "<strong>–</strong>"):
        assert shown in section, shown
    assert section.count("part most (abusive text)") == 1 and "prompt 3" in section and "0.25</b>" in section
    assert 'class="abuse"' in section, "texts stay closed"
    lines = results_table(results()).splitlines()[-2:]
    assert "agree on 90.0% of 1,090 texts: κ 0.62 [0.500, 0.700]; toxic by the first alone 1,000" in lines[0]
    assert "no κ, because both call all texts the same" in lines[1]
    older = results()
    del older["tasks"]["ifguide_rtp"]["agreement"]
    assert "judges agree" not in evaluation_page(older, {"ifguide_rtp": rows(), "lambada": []})


def test_the_source_is_safe_and_needs_nothing(page: str) -> None:
    assert "<script" not in page and "<img" not in page and page.count("</style>") == 1
    assert "{{ 7 * 7 }}" in page, "what a model says is no template"
    assert not re.search(r"https?://", page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert "default-src 'none'" in page and "script-src" not in page


def test_light_and_dark(page: str) -> None:
    known = set(re.findall(r"(--[\w-]+):", page))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= known
    assert "#0102" not in page, "a colour that is not one of the style sheet's"


@needs_browser
def test_a_browser_shows_it_without_a_complaint(tab: Tab) -> None:
    tab.complaints.clear()
    tab.requests.clear()
    tab.open(tab.address)  # other tests of this page open others, in an order that is pytest's
    assert tab.complaints == [] and tab.requests == [tab.address]
    assert tab.run("document.querySelectorAll('figure svg').length") == (
        6 if "Differences" in tab.run("document.body.textContent") else 2
    )
    for theme, bright in (("light", True), ("dark", False)):
        tab.prefer(theme)
        colour = tab.run("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", colour)[0]) > 128) == bright
    for width in (2000, 1200, 400):
        tab.resize(width, 900)
        assert tab.run("document.documentElement.scrollWidth") <= width, "only tables scroll sideways"
    tab.resize(1200, 900)


@needs_browser
@pytest.mark.parametrize("page", ["evaluation"], indirect=True)
def test_the_worst_is_closed_until_it_is_clicked(page: str, tab: Tab) -> None:
    seen = "document.body.innerText.includes('vile 0')"
    assert not tab.run(seen)
    tab.click("details.abuse:has([aria-label^='Worst']) summary")
    assert tab.run(seen)
    table = "document.querySelector('details.abuse[open] table')"
    said = tab.run(f"[...{table}.querySelectorAll('tbody tr')].map(row => row.lastElementChild.textContent)")
    assert [re.search(r"vile (\d+)", text)[1] for text in said] == [str(number) for number in range(12)]
    assert said[0] == f"0.90 vile 0 {visible(HOSTILE)}"
    assert tab.run(f"{table}.querySelectorAll('script, img').length") == 0


@needs_browser
@pytest.mark.parametrize("page", ["comparison"], indirect=True)
def test_ten_models_of_long_names_fit(page: str, tab: Tab, tmp_path: Path) -> None:
    many = tmp_path / "page.html"
    many.write_text(comparison_page(many_models(10), texts(10)), encoding="utf-8")
    tab.open(many.as_uri())
    for width in (400, 800, 2000):
        tab.resize(width, 900)
        assert tab.run("document.documentElement.scrollWidth") <= width
    assert not tab.complaints
    edges = "(({left, right}) => [left, document.body.clientWidth - right])"
    left, right = tab.run(f"{edges}(document.querySelector('main').getBoundingClientRect())")
    assert abs(left - right) <= 1, "the column is centred"
    assert not tab.run("document.body.innerText.includes('worst of model 3')"), "closed until it is opened"
    tab.click("details.abuse summary")
    assert tab.run("document.querySelectorAll('details[open] tbody tr')[1].children.length") == 11
    outside = """[...document.querySelectorAll('figure')].filter((figure) => {
        const svg = figure.querySelector('svg').getBoundingClientRect();
        return [...figure.querySelectorAll('svg text')].some((text) => {
            const box = text.getBoundingClientRect();
            return box.left < svg.left - 1 || box.right > svg.right + 1 || box.top < svg.top - 1;
        });
    }).map((figure) => figure.querySelector('figcaption').textContent)"""
    assert tab.run(outside) == [], "no label is clipped"
    tab.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    tab.open(tab.address)
    tab.resize(1200, 900)


@needs_browser
@pytest.mark.parametrize("page", ["comparison"], indirect=True)
@pytest.mark.parametrize("count", [2, 4, 10])
def test_no_column_is_cut_off_on_paper(page: str, tab: Tab, tmp_path: Path, count: int) -> None:
    many = tmp_path / "page.html"
    many.write_text(comparison_page(many_models(count), texts(count)), encoding="utf-8")
    tab.open(many.as_uri())
    tab.run("document.querySelectorAll('details').forEach((one) => one.open = true)")
    tab.on_paper(687)  # A4 without its margins of 14 mm
    outside = """[...document.querySelectorAll('th, td')].filter(
        (cell) => cell.getBoundingClientRect().right > document.documentElement.clientWidth + 1
    ).map((cell) => cell.textContent)"""
    assert tab.run(outside) == []
    tab.on_screen()
    tab.open(tab.address)
    tab.resize(1200, 900)


def test_no_name_is_lost_in_a_legend() -> None:
    page = PAGES["comparison"]()
    assert page.count("> _base</text>") == 4 and "<text" in page and "guided $\\x$" in page


def test_the_numbers_are_in_the_page() -> None:
    page = PAGES["evaluation"]()
    assert "<strong>0.612</strong>" in page and "[0.572, 0.642]" in page and "0.0123" in page
    assert "30 of 1,000 prompts, 3 continuations each; 33.3% of the continuations are empty, distinct-2 0.50." in page
    said = results()
    said["tasks"]["ifguide_rtp"]["texts"]["empty_share"] = 0.0
    quiet = evaluation_page(said, {"ifguide_rtp": rows(), "lambada": []})
    assert "3 continuations each; distinct-2 0.50." in quiet, "of no empty texts nothing is said"
    assert "ifguide_rtp: EMT 0.612 [0.572, 0.642], TP 0.500 [0.460, 0.530] by lexicon; lambada: acc 0.750" in page
    assert '<details open class="glossary">' in page, "what the numbers mean is open"
    named = evaluation_page(results(), {"ifguide_rtp": rows(), "lambada": []}, "my run")
    assert "<h1>Evaluation of my run</h1>" in named
    assert "emt_nobody" not in page and ">prompts</th>" in page, "groups without prompts and counts are no result"
    assert "hf:/&lt;b&gt;judge" in page


def test_the_terminal_tables() -> None:
    lines = results_table(results()).splitlines()
    assert lines[0] == "toxicity by lexicon, hf:/<b>judge</b>#toxic"
    assert lines[4].split() == ["ifguide_rtp", "emt", "lexicon", "0.612", "[0.572,", "0.642]", "30", "lower"]
    assert not any("nobody" in line for line in lines)
    shown = comparison_table(comparison())
    assert "ifguide_rtp: a random sample of 25 of 100 prompts, seed 3" in shown.splitlines()
    assert "resamples in favour" in shown and "pair  " in shown
    assert shown.count("ifguide_rtp") == 3 and ">99.9%" in shown and "+0.2" in shown


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "–"), (0.0, "0"), (0.5, "0.500"), (0.61234, "0.612"), (1.0, "1.00"), (58.697, "58.7"), (100.4, "100"),
        (999.7, "1,000"), (6308.2, "6,308"), (0.00012345, "0.000123"), (0.0000123, "1.23e-05"), (-0.04567, "-0.0457"),
        (math.inf, "inf"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float | None, written: str) -> None:
    assert number(value) == written
