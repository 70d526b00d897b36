"""The whole page: self-contained, well-formed, true to the results, and safe with hostile text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ifguide.pages.quickstart import quickstart_page
from ifguide.pages.table import METRICS
from ifguide.pages.text import visible
from ifguide.quickstart.report import load_page_data, report_page
from ifguide.system.files import read_jsonl
from tests.browser import Tab, needs_browser, page_in_browser

MODELS = ("base", "guided", "control")
TOKENS = "document.querySelector('.tokens')"


@pytest.fixture(scope="session")
def page(planted_folder: tuple) -> str:
    return report_page(*planted_folder)


@pytest.fixture(scope="module")
def tab(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with page_in_browser(page, tmp_path_factory.mktemp("browser")) as tab:
        tab.resize(1200, 900)
        yield tab


@pytest.fixture
def opened(tab: Tab) -> Tab:
    """The page with its documents on the screen."""
    tab.complaints.clear()
    tab.requests.clear()
    tab.open(tab.address)
    tab.click("details.abuse summary")
    tab.until(f"{TOKENS}.children.length > 0")
    return tab


def data_of(page: str, parse: type) -> dict[str, Any]:
    return json.loads(parse(page, ("script",)).texts["script"][0])


def test_needs_nothing_but_itself(page: str, parse: type) -> None:
    for tag, attributes in parse(page).elements:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes and "action" not in attributes and "srcset" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style and "url(" not in style
    assert not re.search(r"https?://", page)
    assert len(page.encode()) < 3_000_000


def test_only_its_own_script_may_run(page: str, parse: type) -> None:
    _, script = parse(page, watch=("script",)).texts["script"]
    assert [a for tag, a in parse(page).elements if tag == "script"] == [{"id": "data", "type": "application/json"}, {}]
    policy = next(a["content"] for tag, a in parse(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_documents_come_back_letter_by_letter(page: str, planted_folder: tuple, parse: type) -> None:
    texts = {visible(row["text"]) for row in read_jsonl(planted_folder[0] / "corpus.jsonl")}
    shown = {document["text"] for document in data_of(page, parse)["shown"]}
    assert shown and shown <= texts
    assert any("</script><script>alert(1)" in text for text in shown)
    assert page.count("<script") == page.count("</script") == 2
    assert "{{ 7 * 7 }}" in page, "a document is no template"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page)


def test_the_table_holds_the_results(page: str, planted_folder: tuple, parse: type) -> None:
    _, results = planted_folder
    cells = parse(page, ("td",)).texts["td"][: len(MODELS) * len(METRICS)]
    for name in MODELS:
        for metric in METRICS:
            words = re.findall(r"[\d.]+", cells.pop(0))
            numbers = results[name]
            expected = [numbers[metric.key], *numbers.get(f"{metric.key}_interval", [])]
            assert [float(word) for word in words] == pytest.approx(expected, abs=0.0005)


def test_abuse_is_closed_and_announced(page: str, parse: type) -> None:
    warning = page.index("Content warning")
    assert warning < page.index('<details class="abuse">')
    inside = "".join(parse(page, ("abuse",)).texts["abuse"])
    (outside,) = parse(re.sub(r'<details class="abuse">.*?</details>', "", page, flags=re.S), ("main",)).texts["main"]
    assert "worthless" in str(data_of(page, parse)) and "worst of guided" in inside
    assert "worthless" not in outside and "worst of" not in outside
    assert not [a for tag, a in parse(page).elements if tag == "details" and "open" in a]


@needs_browser
def test_scores_selection_and_truth_are_marked(opened: Tab, planted_folder: tuple) -> None:
    data = load_page_data(*planted_folder)
    drawn = opened.run(
        "[...document.querySelectorAll('.tokens')].map(box => [...box.children].map(s => [s.textContent, s.className]))"
    )
    full = data.marks.full_colour()
    for spans, document in zip(drawn, data.documents, strict=True):
        assert [text for text, _ in spans] == [visible(text) for text, _ in document.pieces]
        for (_, names), (_, at) in zip(spans, document.spans(), strict=True):
            classes = names.split()
            assert ("sel" in classes) == bool(document.strengths[at].any())
            assert ("pl" in classes) == bool(document.planted[at].any())
            score = max(document.scores[at].tolist(), key=abs)
            step = round(10 * min(1, abs(score) / full))
            assert not step or f"{'p' if score > 0 else 'n'}{step}" in classes
    shades = {name for spans in drawn for _, names in spans for name in names.split()}
    assert {"sel", "pl", "p10"} <= shades and any(name.startswith("n") and name != "nl" for name in shades)


@needs_browser
def test_a_browser_shows_it_without_a_complaint(opened: Tab) -> None:
    assert opened.complaints == [] and opened.requests == [opened.address]
    assert opened.run("document.querySelectorAll('.tokens script, .tokens img, .tokens b').length") == 0
    for width in (1200, 500):
        opened.resize(width, 900)
        assert opened.run("document.documentElement.scrollWidth") <= width, "only tables scroll sideways"
    opened.resize(1200, 900)


@needs_browser
def test_nothing_abusive_is_seen_before_the_click(tab: Tab) -> None:
    tab.open(tab.address)
    assert tab.run(f"{TOKENS}.children.length") == 0
    assert "worthless" not in tab.run("document.body.innerText")


@needs_browser
def test_keys_walk_through_the_tokens(opened: Tab, planted_folder: tuple) -> None:
    document = load_page_data(*planted_folder).documents[0]
    opened.run(f"{TOKENS}.focus()")
    opened.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert opened.run("document.querySelector('.tokens .at').place") == 0
    tip = opened.run("document.getElementById('tip').innerText")
    assert f"score {float(document.scores[0]):.4g}" in tip and "rank" not in tip
    planted = next(place for place, (_, at) in enumerate(document.spans()) if document.planted[at].any())
    opened.press(*["ArrowRight"] * planted)
    assert "planted" in opened.run("document.getElementById('tip').innerText")
    opened.press("Escape")
    assert opened.run("document.getElementById('tip').hidden")
    opened.hover(".tokens .sel")
    assert "selected" in opened.run("document.getElementById('tip').innerText")


def test_light_and_dark(page: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", page, re.S)
    assert "prefers-color-scheme: dark" in page
    assert re.findall(r"--[\w-]+", light) == re.findall(r"--[\w-]+", dark)
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= set(re.findall(r"(--[\w-]+):", page))


def test_own_text_has_no_truth(make_folder: Callable, parse: type) -> None:
    folder, results = make_folder(False)
    page = report_page(folder, results)
    parse(page)
    assert "Underlined" not in page and "planted tokens" not in page
    assert "nothing was planted" in page and "hf:&lt;x&gt;#toxic" in page
    shutil.rmtree(folder / "checkpoints")
    assert "Training loss" not in report_page(folder, results)


def test_a_judge_that_cannot_be_relied_on_is_announced_above_its_numbers(make_folder: Callable, parse: type) -> None:
    folder, results = make_folder(False)
    calm = report_page(folder, results)
    results["judge"] = {"scorer": "linear", "heldout": None, "warning": "do not rely on <it>"}
    page = report_page(folder, results)
    parse(page)
    assert calm.count('role="note"') == 1 and page.count('role="note"') == 2
    box = page.index("do not rely on &lt;it&gt;.")
    assert page.index('id="results"') < box < page.index("<table", page.index('id="results"'))


def test_a_fourth_model_has_a_row_a_column_and_a_colour(planted_folder: tuple, four: dict, parse: type) -> None:
    page = quickstart_page(load_page_data(*planted_folder), four)
    cells = parse(page, ("td", "th", "said"))
    assert cells.texts["th"].count("d<p>o") == 3, "the results, and the prompts of two kinds"
    fourth = cells.texts["td"][len(METRICS) : 2 * len(METRICS)]
    assert fourth[0].split()[0] == f"{four['base']['emt_toxic'] / 2:.3f}"
    assert "–" in cells.texts["td"], "no continuations of it in this folder"
    swatches = [a["class"].split()[1] for tag, a in cells.elements if a.get("class", "").startswith("swatch")]
    assert swatches == ["base", "other", "guided", "control"] * 3
    style = page[page.index("<style>") : page.index("</style>")]
    assert all(f".swatch.{colour} {{" in style for colour in swatches)
