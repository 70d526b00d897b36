"""Spans of text as one HTML page that takes labels by keyboard, needs nothing but itself, and names no mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ifguide.pages.environment import Html, json_text, page, read
from ifguide.pages.text import visible


def labelling_page(spans: Sequence[Mapping[str, Any]], key: str) -> str:
    """The whole page.

    Args:
        spans: ``id``, ``before``, ``text``, ``after`` of each, in the order in which they are shown.
        key: of the audit; the browser keeps labels under it.
    """
    shown = [[span["id"], *(visible(span[name]) for name in ("before", "text", "after"))] for span in spans]
    return page(
        "IF-Guide: label spans",
        Html(read("labelling/labelling.html")),
        scripts=["labelling/labelling.js"],
        data=json_text({"key": key, "spans": shown}),
    )
