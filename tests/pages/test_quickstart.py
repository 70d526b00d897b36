"""The whole page: self-contained, well-formed, true to the results, and safe with hostile text."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ifguide.pages.quickstart import quickstart_page
from ifguide.pages.table import METRICS, MODELS
from ifguide.pages.text import visible
from ifguide.system.files import read_jsonl

_CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def page(planted_folder: tuple) -> str:
    return quickstart_page(*planted_folder)


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
    (script,) = parse(page, watch=("script",)).texts["script"]
    policy = next(a["content"] for tag, a in parse(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_documents_come_back_letter_by_letter(page: str, planted_folder: tuple, parse: type) -> None:
    texts = {visible(row["text"]) for row in read_jsonl(planted_folder[0] / "corpus.jsonl")}
    shown = [
        text.removeprefix("\n") if text not in texts else text for text in parse(page, ("tokens",)).texts["tokens"]
    ]
    assert shown and set(shown) <= texts
    assert any("</script><script>alert(1)" in text for text in shown)
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
    assert "worthless" in inside and "worst of guided" in inside
    assert "worthless" not in outside and "worst of" not in outside
    assert not [a for tag, a in parse(page).elements if tag == "details" and "open" in a]


def test_scores_selection_and_truth_are_marked(page: str, parse: type) -> None:
    marked = [a for tag, a in parse(page).elements if tag == "span" and "title" in a]
    classes = {name for a in marked for name in a["class"].split()}
    assert {"sel", "pl", "p10"} <= classes and any(name.startswith("n") for name in classes)
    style = page[page.index("<style>") : page.index("</style>")]
    assert all(re.search(rf"\.{name}\b", style) for name in classes)


def test_light_and_dark(page: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", page, re.S)
    assert "prefers-color-scheme: dark" in page
    assert re.findall(r"--[\w-]+", light) == re.findall(r"--[\w-]+", dark)
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= set(re.findall(r"--[\w-]+", light))


def test_own_text_has_no_truth(make_folder: Callable, parse: type) -> None:
    folder, results = make_folder(False)
    page = quickstart_page(folder, results)
    parse(page)
    assert "Underlined" not in page and "planted tokens" not in page
    assert "Nothing was planted" in page and "hf:&lt;x&gt;#toxic" in page
    shutil.rmtree(folder / "checkpoints")
    assert "Training loss" not in quickstart_page(folder, results)


@pytest.mark.skipif(not _CHROMIUM.exists(), reason="no chromium on this machine")
def test_a_browser_loads_it_without_a_complaint(page: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    command = [
        _CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
        "--enable-logging=stderr", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert done.stdout.count("<article>") == page.count("<article>") > 0
    assert done.stdout.count("<script") == 1
