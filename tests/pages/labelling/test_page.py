"""The page in a real browser: labels by keyboard, undo, a second visit, and the exported file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifguide.pages.labelling.page import labelling_page
from tests.browser import Tab, needs_browser, page_in_browser

TEXTS = ["you fool", "a quiet day", "</script><img src=x onerror=alert(1)>", "right \u202e to left", "the last"]


def make_page(key: str = "abc") -> str:
    spans = [
        {"id": f"{key}-{n}", "before": f"before {n} ", "text": text, "after": f" after {n}"}
        for n, text in enumerate(TEXTS)
    ]
    return labelling_page(spans, key)


@pytest.fixture(scope="module")
def shared_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with page_in_browser(make_page(), tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(shared_tab: Tab) -> Tab:
    """The page of somebody who has labelled nothing yet."""
    shared_tab.resize(1200, 800)
    shared_tab.open(shared_tab.address)
    shared_tab.run("localStorage.clear()")
    shared_tab.open(shared_tab.address)
    shared_tab.complaints.clear()
    shared_tab.requests.clear()
    return shared_tab


@pytest.fixture
def opened(tab: Tab) -> Tab:
    tab.press("Enter")
    return tab


def shown(tab: Tab) -> str:
    return tab.run("document.getElementById('span').textContent")


def count(tab: Tab) -> str:
    return tab.run("document.getElementById('count').textContent")


def seen(text: str) -> str:
    """As the page shows it: no character turns the others round."""
    return text.replace("\u202e", "⟨U+202E⟩")


def rows(tab: Tab) -> list[dict[str, str]]:
    return [json.loads(line) for line in tab.run("exported()").splitlines()]


def test_the_source_is_safe_and_needs_nothing() -> None:
    page = make_page()
    assert page.count("<script") == page.count("</script") == 2
    assert "<!--" not in page and "http://" not in page and "https://" not in page
    assert "\u202e" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]


@needs_browser
def test_the_warning_comes_first(tab: Tab) -> None:
    assert tab.run("document.getElementById('gate').innerText").startswith("Content warning")
    assert "you fool" not in tab.run("document.body.innerText")
    tab.press("a")
    assert rows(tab) == [], "keys do nothing before the warning is accepted"
    tab.press("Enter")
    assert shown(tab) == "you fool" and "before 0" in tab.run("document.getElementById('passage').innerText")


@needs_browser
def test_keys_label_and_undo(opened: Tab) -> None:
    opened.press("a", "n", "u")
    assert rows(opened) == [
        {"id": "abc-0", "label": "abuse"}, {"id": "abc-1", "label": "not"}, {"id": "abc-2", "label": "unsure"},
    ]  # fmt: skip
    assert count(opened) == "3 of 5 labelled, 1 unsure · passage 4"
    opened.press("z")
    assert count(opened) == "2 of 5 labelled · passage 3" and shown(opened) == TEXTS[2]
    opened.press("z", "z", "z")
    assert rows(opened) == [] and shown(opened) == TEXTS[0]
    assert opened.run("document.getElementById('undo').disabled")
    assert opened.complaints == []


@needs_browser
def test_texts_are_inert(opened: Tab) -> None:
    for number in range(len(TEXTS)):
        assert shown(opened) == seen(TEXTS[number])
        opened.press("n")
    assert opened.run("document.querySelectorAll('#passage img, #passage script').length") == 0
    assert opened.complaints == [] and opened.requests == []


@needs_browser
def test_a_second_visit_goes_on_where_the_first_ended(opened: Tab) -> None:
    opened.press("a", "ArrowRight", "u")
    opened.open(opened.address)
    assert "2 of them labelled already" in opened.run("document.getElementById('about').textContent")
    opened.press("Enter")
    assert shown(opened) == TEXTS[1], "the first without a label"
    opened.press("n")
    assert shown(opened) == seen(TEXTS[3])
    opened.press("z", "z")
    assert shown(opened) == TEXTS[2], "undo knows what an earlier visit did"
    assert [row["id"] for row in rows(opened)] == ["abc-0"]


@needs_browser
def test_a_label_can_be_changed(opened: Tab) -> None:
    opened.press("a", "ArrowLeft")
    assert opened.run("document.querySelector('[aria-pressed=true]').dataset.label") == "abuse"
    assert opened.run("document.getElementById('state').textContent") == "Labelled: abuse."
    opened.press("n")
    assert rows(opened) == [{"id": "abc-0", "label": "not"}] and shown(opened) == TEXTS[1]
    opened.press("z")
    assert rows(opened) == [{"id": "abc-0", "label": "abuse"}], "the label before comes back"


@needs_browser
def test_the_end_says_what_to_do(opened: Tab, tmp_path: Path) -> None:
    for button in ("abuse", "not", "unsure", "not", "abuse"):
        opened.click(f"[data-label={button}]")
    assert count(opened) == "5 of 5 labelled, 1 unsure"
    assert "ifguide audit-mask --labels" in opened.run("document.getElementById('state').textContent")
    opened.press("a")
    assert len(rows(opened)) == 5
    path = opened.download("#export", tmp_path)
    assert path.name == "labels-abc.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows(opened)
    opened.press("z")
    assert shown(opened) == TEXTS[4] and opened.complaints == []


@needs_browser
def test_another_audit_starts_anew(opened: Tab, tmp_path: Path) -> None:
    opened.press("a")
    (tmp_path / "other.html").write_text(make_page("other"), encoding="utf-8")
    opened.open((tmp_path / "other.html").as_uri())
    assert "already" not in opened.run("document.getElementById('about').textContent")


@needs_browser
@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_sticks_out(opened: Tab, width: int) -> None:
    opened.resize(width, 700)
    assert opened.run("document.documentElement.scrollWidth") <= width
