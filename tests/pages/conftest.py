"""Quickstart folders and their results, a fourth model, and a parser that insists on order."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.support import quickstart_folders
from tests.support.quickstart_folders import make_folder, planted_folder

__all__ = ["make_folder", "planted_folder"]

_VOID = {"meta", "link", "br", "hr", "img", "input"}


@pytest.fixture
def make_results() -> Callable[[bool], dict[str, Any]]:
    """``make_results(known)``: what results.json holds; ``known`` says whether abuse was planted."""
    return quickstart_folders.make_results


@pytest.fixture
def four(make_results: Callable) -> dict[str, Any]:
    """Results with a fourth model, whose name means nothing to the pages, in the second place."""
    results = make_results(True)
    fourth = {key: value for key, value in results["base"].items() if not key.endswith("interval")}
    fourth = {key: value / 2 for key, value in fourth.items()}
    fourth |= {
        key: [value / 2 for value in results["base"][key]] for key in results["base"] if key.endswith("interval")
    }
    return {"base": results.pop("base"), "d<p>o": fourth, **results}


class Page(HTMLParser):
    """A parsed page that insists on every element being closed in order.

    Attributes:
        elements: (tag, attributes) in order.
        texts: text of each element named in ``watch`` by its class or tag, in order.
    """

    def __init__(self, html: str, watch: tuple[str, ...] = ()):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {name: [] for name in watch}
        self._open: list[tuple[str, list[str]]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, attributes))
        if tag in _VOID:
            return
        names = [name for name in self.texts if name in (tag, *attributes.get("class", "").split())]
        for name in names:
            self.texts[name].append("")
        self._open.append((tag, names))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for name in {name for _, names in self._open for name in names}:
            self.texts[name][-1] += data


@pytest.fixture
def parse() -> type[Page]:
    return Page
