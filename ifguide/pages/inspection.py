"""Inspected documents as one HTML page that needs nothing but itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.pages.document import ShownDocument, documents_json
from ifguide.pages.environment import Html, page, read


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
        "histogram": counted and {"low": counted.low, "high": counted.high, "counts": counted.counts.tolist()},
    }
    return documents_json(head, inspection.documents)
