"""The system's Chromium, headless, driven by playwright; a test that needs one is skipped where there is none."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# what is missing here; "" where a browser can be started
ABSENT = ", ".join(
    name
    for name, found in (("chromium", CHROMIUM), ("the package playwright", importlib.util.find_spec("playwright")))
    if not found
)
needs_browser = pytest.mark.skipif(bool(ABSENT), reason=f"no browser on this machine: without {ABSENT}")
_PATIENCE = 60_000  # milliseconds, for any one answer


class Tab:
    """One page.

    Attributes:
        complaints: console messages, exceptions and security violations so far.
        requests: every URL that the page asked for.
        address: for whoever opens the same page again.
    """

    address = ""

    def __init__(self, page: Page):
        self._page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(_PATIENCE)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, url: str) -> None:
        self._page.goto(url)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise is awaited)."""
        return self._page.evaluate(f"() => ({expression})")

    def until(self, expression: str) -> None:
        self._page.wait_for_function(f"() => ({expression})")

    def click(self, selector: str) -> None:
        self._page.locator(selector).first.click()

    def hover(self, selector: str) -> None:
        """Move the mouse onto the first box of an element: the middle of one that is broken over lines may lie
        outside all of them."""
        x, y = self.run(
            f"""(() => {{
                const found = document.querySelector({json.dumps(selector)});
                found.scrollIntoView({{block: "nearest"}});
                const box = found.getClientRects()[0];
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        self._page.mouse.move(x, y)

    def press(self, *keys: str) -> None:
        for key in keys:
            self._page.keyboard.press(key)

    def write(self, text: str) -> None:
        self._page.keyboard.insert_text(text)

    def resize(self, width: int, height: int) -> None:
        self._page.set_viewport_size({"width": width, "height": height})

    def prefer(self, theme: Any) -> None:
        """``light`` or ``dark``, as the system would ask for it."""
        self._page.emulate_media(color_scheme=theme)

    def on_paper(self, width: int) -> None:
        """Lay the page out by the rules of printing, ``width`` pixels between the margins; until `on_screen`."""
        self._page.emulate_media(media="print")
        self.resize(width, 900)

    def on_screen(self) -> None:
        self._page.emulate_media(media="screen")

    def download(self, selector: str, folder: Path) -> Path:
        """The file that a click gives, in ``folder`` under its own name."""
        with self._page.expect_download() as found:
            self.click(selector)
        path = folder / found.value.suggested_filename
        found.value.save_as(path)
        return path

    def print(self, path: Path) -> None:
        """Print the page to a PDF of A4."""
        self._page.pdf(path=path, format="A4", print_background=True)

    def picture(self, path: Path) -> None:
        self._page.screenshot(path=path)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser with one empty tab; ``profile`` is a folder of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, chromium_sandbox=False,
            args=["--disable-gpu", "--disable-dev-shm-usage"],
        )  # fmt: skip
        try:
            yield Tab(context.pages[0])
        finally:
            context.close()


@contextlib.contextmanager
def page_in_browser(page: str, folder: Path) -> Iterator[Tab]:
    """A browser whose tab has the address of ``page``, written into ``folder``; it is not opened yet."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    with browser(folder / "profile") as tab:
        tab.address = path.as_uri()
        yield tab
