"""Whole documents in an order, removed until the budget is used: what filters do (baselines of Algorithm 1).

    removed tokens <= L < removed tokens + tokens of the next document

so that filters of every kind remove as much as each other. The order is that of one number a document, descending,
equal ones by their place; an empty document is none.

Shapes: D documents.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.quantile import refuse_non_finite
from ifguide.selection.source import Source, Span

R, SUM, MEAN, TOXIC, WORDS, SCORER = "R", "sum", "mean", "toxic", "words", "scorer"
RANKINGS = (R, SUM, MEAN, TOXIC, WORDS, SCORER)
RANKING_PASSES = 1  # over the corpora, made by `document_values`


def document_values(
    source: Source, rank_by: str, on_span: Callable[[Span], object] = lambda span: None
) -> NDArray[np.float64]:
    """One number a document, float64[D], of its eligible tokens in their order.

    Args:
        rank_by: ``sum`` and ``toxic``: Σs; ``mean``: Σs over their number; ``scorer``: the highest s. Without an
            eligible token a document has -inf.

    Raises:
        NumericsError: a score is NaN or infinite; names the first.
    """
    documents = len(source.starts) - 1
    values = np.full(documents, -np.inf) if rank_by == SCORER else np.zeros(documents)
    counts = np.zeros(documents, np.int64)
    for span in source.spans():
        scores = source.scores(span)
        if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
            refuse_non_finite(source, span, scores)
        places = np.arange(span.offset, span.offset + len(span))
        owners = np.searchsorted(source.starts, places, side="right") - 1
        eligible = source.is_eligible(span)
        if eligible is not None:
            scores, owners = scores[eligible], owners[eligible]
        if rank_by == SCORER:
            np.maximum.at(values, owners, scores.astype(np.float64))
        else:  # one after another, so that chunks change no rounding
            np.add.at(values, owners, scores.astype(np.float64))
        np.add.at(counts, owners, 1)
        on_span(span)
    if rank_by == MEAN:
        values = values / np.maximum(counts, 1)
    return np.where(counts > 0, values, -np.inf)


def word_shares(
    source: Source, find: Callable[[NDArray[np.integer]], NDArray[np.int64]]
) -> NDArray[np.float64]:  # fmt: skip
    """Tokens of listed words over tokens of each document, float64[D]; end-of-document tokens are neither.

    Args:
        find: the places of listed words' tokens among a document's ids.
    """
    shares = np.zeros(len(source.starts) - 1)
    for number in range(len(shares)):
        ids, eod = source.document(number)
        found, tokens = find(ids), len(ids)
        if eod is not None:
            found = found[ids[found] != eod]
            tokens -= int(np.count_nonzero(ids == eod))
        shares[number] = len(found) / tokens if tokens else 0.0
    return shares


def drop_documents(
    source: Source, values: NDArray[np.float64], budget: int, above: float = -np.inf
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """The documents that are removed: by descending ``values`` until the first that does not fit whole.

    Args:
        budget: L, in tokens.
        above: documents with this value or less stay.

    Returns:
        (ascending document numbers, counts).
    """
    lengths = np.diff(source.starts)
    candidates = np.flatnonzero((lengths > 0) & (values > above))
    order = candidates[np.argsort(-values[candidates], kind="stable")]
    running = np.cumsum(lengths[order])
    dropped = np.sort(order[: int(np.searchsorted(running, budget, side="right"))])
    return dropped, {
        "tokens": source.num_tokens,
        "budget": budget,
        "documents": len(lengths),
        "documents_ranked": len(order),
        "documents_removed": len(dropped),
        "tokens_removed": int(lengths[dropped].sum()),
    }
