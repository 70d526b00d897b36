"""Inspected documents as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.pages.document import ShownDocument, documents_json
from ifguide.pages.environment import Html, page, read
from ifguide.pages.text import visible


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often each score occurs.

    Attributes:
        low, high: ends of the first and the last bin.
        counts: int64[B], B bins.
    """

    low: float
    high: float
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """How a mask came to select what it selects, as far as its record says it: the page gives it as the reason.

    Attributes:
        threshold: τ, above which a token is selected for its own sake; None where it was not decided token by token.
        window: neighbours on each side of such a token that are selected with it.
        span: what is selected whole, as ``line``; None where it was decided token by token.
        method: of the mask, in the words of its record.
    """

    threshold: float | None = None
    window: int = 0
    span: str | None = None
    method: str | None = None


@dataclass(frozen=True, eq=False)
class Inspection:
    """What `inspect` shows.

    Attributes:
        documents: most toxic first.
        num_documents, num_tokens, num_selected: of the whole dataset.
        threshold: τ, or None without scores.
        full_colour: the |score| that gets the full colour; 0 without scores.
        histogram: of all scores, or None.
        graded: whether the mask's strengths differ.
        names: what was read, for people: data, mask, scores.
        rule: how the mask was made.
        phrases: (text, how often) of the phrases that the mask selects most.
    """

    documents: list[ShownDocument]
    num_documents: int
    num_tokens: int
    num_selected: int
    threshold: float | None
    full_colour: float
    histogram: Histogram | None
    graded: bool
    names: dict[str, str]
    rule: Rule = Rule()
    phrases: Sequence[tuple[str, int]] = ()


def inspection_page(inspection: Inspection) -> str:
    """The whole page."""
    return page(
        "IF-Guide inspector",
        Html(read("inspection.html")),
        scripts=["document.js", "inspection.js"],
        data=page_data(inspection),
    )


def page_data(inspection: Inspection) -> str:
    """The JSON that the page's scripts read."""
    counted = inspection.histogram
    head = {
        "names": inspection.names,
        "documents": inspection.num_documents,
        "tokens": inspection.num_tokens,
        "selected": inspection.num_selected,
        "threshold": inspection.threshold,
        "full": inspection.full_colour,
        "graded": inspection.graded,
        "rule": asdict(inspection.rule),
        "phrases": [[visible(text), count] for text, count in inspection.phrases],
        "histogram": counted and {"low": counted.low, "high": counted.high, "counts": counted.counts.tolist()},
    }
    return documents_json(head, inspection.documents)
