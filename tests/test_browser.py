"""What a page does wrong in the browser is noticed: the tests of our pages rest on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import browser, needs_browser

POLICY = "default-src 'none'; script-src 'unsafe-inline'"


@needs_browser
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<script>throw new Error('thrown on purpose')</script>", "thrown on purpose"),
        ("<script>console.log('said on purpose')</script>", "said on purpose"),
        ("<img src='beside.png'>", "Content Security Policy"),
        ("<p style='color: red'>red</p>", "Content Security Policy"),
        ("<p>nothing wrong</p>", None),
    ],
)
def test_complaints_are_noticed(body: str, says: str | None, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{body}')
    with browser(tmp_path / "profile") as tab:
        tab.open(page.as_uri())
        assert tab.run("document.readyState") == "complete"
        assert len(tab.complaints) == (says is not None) and all(says in line for line in tab.complaints if says)
        assert tab.requests[0] == page.as_uri()


@needs_browser
def test_what_a_page_asks_for_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "beside.css").write_text("p { color: red }")
    page = tmp_path / "page.html"
    page.write_text("<link rel='stylesheet' href='beside.css'><p>red</p>")
    with browser(tmp_path / "profile") as tab:
        tab.open(page.as_uri())
        assert tab.requests == [page.as_uri(), (tmp_path / "beside.css").as_uri()] and tab.complaints == []
        assert tab.run("getComputedStyle(document.querySelector('p')).color") == "rgb(255, 0, 0)"
