"""Documents by toxicity, and where single scores stand among all, in passes over files of any size.

Shapes: N tokens, D documents, U ranking units, Q scores asked about, B bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned
from ifguide.data.indexed import TokenDataset
from ifguide.pages.inspection import Histogram
from ifguide.selection.algorithm import unit_r, unit_starts
from ifguide.selection.quantile import quantile
from ifguide.selection.settings import SelectionSettings
from ifguide.selection.source import ScoredCorpus, Source, read_values
from ifguide.selection.tail import toxic_tokens

_BINS = 96
_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Ranking:
    """Documents by how toxic they are.

    Attributes:
        order: int64[D], most toxic first; ties by position.
        toxicity: float64[D], the largest R of a document's units (M3); without scores, its selected share.
        selected: int64[D], its selected tokens.
        threshold: τ, or None without scores.
    """

    order: NDArray[np.int64]
    toxicity: NDArray[np.float64]
    selected: NDArray[np.int64]
    threshold: float | None


def rank_documents(tokens: TokenDataset, mask: Aligned, scores: Aligned | None, eod: int | None) -> Ranking:
    """By R, with τ and the ranking units of ``mask``; without scores, or of a mask of spans, by the selected share.

    Args:
        eod: the end-of-document token, which Algorithm 1 did not count unless it was told to.
    """
    selected = selected_per_document(mask, tokens.starts)
    # τ and R belong to Algorithm 1
    if scores is None or (mask.sidecar.get("parameters") or {}).get("span"):
        share = selected / np.maximum(tokens.lengths, 1)
        return Ranking(np.argsort(-share, kind="stable"), share, selected, None)
    defaults = SelectionSettings()
    parameters = mask.sidecar.get("parameters") or {}
    eod = None if parameters.get("include_eod") else eod
    source = Source([ScoredCorpus(scores.prefix, scores.values, tokens.starts, tokens.tokens, eod)])
    threshold = mask.sidecar.get("threshold")
    if threshold is None:  # a mask made elsewhere
        threshold = quantile(source, defaults.threshold_quantile)
    centres, values = toxic_tokens(source, threshold)
    units = unit_starts(tokens.starts, parameters.get("unit_tokens") or defaults.unit_tokens)
    r = unit_r(values, np.searchsorted(units, centres, side="right") - 1, len(units))
    toxicity = np.zeros(tokens.num_documents)
    np.maximum.at(toxicity, np.searchsorted(tokens.starts, units, side="right") - 1, r)
    # a document of which much is selected and nothing above τ (a random mask) comes before one without either
    order = np.lexsort((np.arange(len(toxicity)), -selected, -toxicity))
    return Ranking(order, toxicity, selected, float(threshold))


def selected_per_document(mask: Aligned, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Selected tokens of each document, int64[D]."""
    counts = np.zeros(len(starts) - 1, np.int64)
    for begin, chunk in _chunks(mask.values):
        documents = np.searchsorted(starts, np.flatnonzero(chunk) + begin, side="right") - 1
        if len(documents):
            first = documents[0]
            found = np.bincount(documents - first)
            counts[first : first + len(found)] += found
    return counts


def ranks_among_all(scores: Aligned, asked: NDArray[np.floating]) -> NDArray[np.int64]:
    """For each score asked about its place among all scores, 1 the largest; equal scores share a place, int64[Q]."""
    distinct, back = np.unique(np.asarray(asked, np.float32), return_inverse=True)
    larger = np.zeros(len(distinct) + 1, np.int64)
    for _, chunk in _chunks(scores.values):
        larger += np.bincount(np.searchsorted(distinct, chunk, side="left"), minlength=len(distinct) + 1)
    # larger[k]: scores in (distinct[k - 1], distinct[k]]
    return 1 + (np.cumsum(larger[::-1])[::-1][1:])[back]


def histogram(scores: Aligned) -> Histogram:
    """All scores in `_BINS` bins of equal width."""
    low, high = np.inf, -np.inf
    for _, chunk in _chunks(scores.values):
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = np.zeros(_BINS, np.int64)
    for _, chunk in _chunks(scores.values):
        counts += np.histogram(chunk, _BINS, (low, high))[0]
    return Histogram(low, high, counts)


def _chunks(values: NDArray) -> Iterator[tuple[int, NDArray]]:
    for begin in range(0, len(values), _CHUNK):
        yield begin, read_values(values, begin, min(begin + _CHUNK, len(values)))
