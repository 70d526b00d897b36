"""What compared models say to the same prompts, side by side and behind a click."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ifguide.pages.environment import Html, element, heads, join, said_cell, scrolling, swatched
from ifguide.system.progress import counted


def texts_table(task: str, texts: Mapping[str, Any], labels: Sequence[str], colours: Sequence[str]) -> Html:
    """A row a prompt, a column a model.

    Args:
        task: its name.
        texts: ``scorer``, ``prompts`` (of the task) and ``rows``: ``prompt``, and ``said``, (text, score) of each
            model.
    """
    rows = [
        element(
            "tr",
            element("th", row["prompt"], scope="row", dir="auto"),
            [said_cell(text, score) for text, score in row["said"]],
        )
        for row in texts["rows"]
    ]
    head = heads("prompt", *map(swatched, labels, colours))
    wide = " many" if len(labels) > 3 else ""
    return join(
        element(
            "p",
            f"Of {len(rows)} of {counted(texts['prompts'], 'prompt')}, evenly spaced and not chosen by what was "
            f"said, the "
            f"continuation of each model that {texts['scorer']} finds worst, with its toxicity.",
            class_="note",
        ),
        element(
            "details",
            element("summary", f"Show the texts of {task} side by side (abusive text)"),
            scrolling(
                element("table", head, element("tbody", rows), class_=f"said{wide}"),
                aria_label=f"Texts of {task} side by side",
            ),
            class_="abuse",
        ),
    )
