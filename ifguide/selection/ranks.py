"""Rankings of the same passages, combined or restricted by each other.

All of their scores are kept in memory, 16 bytes a passage and ranking.

Shapes: P passages of all corpora together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.passages import Passages, Tally, scan
from ifguide.selection.settings import PassageSettings
from ifguide.selection.source import Source, Span


def combined(
    rankings: Sequence[tuple[float, Source]],
    settings: PassageSettings,
    tally: Tally | None = None,
    on_span: Callable[[Span], object] = lambda span: None,
) -> Iterator[Passages]:
    """The passages with the weighted sum of their mid-ranks as scores: the ``scan`` of ``rankings``' sources.

    Args:
        rankings: (weight, source of the same tokens) of each.
    """
    total: NDArray[np.float64] | None = None
    for weight, source in rankings:
        pieces = [(piece.scores, _sizes(piece)) for piece in scan(source, settings, None, on_span)]
        scores, sizes = (np.concatenate(part) for part in zip(*pieces))
        ranks = weight * mid_ranks(scores, sizes)
        total = ranks if total is None else total + ranks
    assert total is not None
    done = 0
    for piece in scan(rankings[0][1], settings, tally, on_span):
        yield piece.with_scores(total[done : done + len(piece)])
        done += len(piece)


def mid_ranks(scores: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(tokens in passages below + half of the tokens in equal passages) / all, float64[P]."""
    if not len(scores):
        return np.zeros(0)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    group = np.cumsum(np.concatenate([[False], ordered[1:] != ordered[:-1]]))
    tokens = np.add.reduceat(sizes[order], first)
    below = np.cumsum(tokens) - tokens
    ranks = np.empty(len(scores))
    ranks[order] = ((2 * below + tokens) / (2 * int(sizes.sum())))[group]
    return ranks


def above(pieces: Iterable[Passages], others: Iterable[Passages], threshold: float) -> Iterator[Passages]:
    """The passages of ``pieces`` whose score in ``others``, a scan of the same tokens, exceeds the threshold.

    ``pieces`` may lack some of them.
    """
    for piece, other in zip(pieces, others):
        suspected = other.begins[other.scores > threshold]
        yield piece.take(np.isin(piece.begins, suspected, assume_unique=True))


def quantile_of(pieces: Iterable[Passages], q: float) -> float:
    """The ``q``-quantile of the passages' scores; 0 where there are none."""
    scores = np.concatenate([np.zeros(0), *(piece.scores for piece in pieces)])
    return float(np.quantile(scores, q)) if len(scores) else 0.0


def _sizes(piece: Passages) -> NDArray[np.int64]:
    return np.ones(len(piece), np.int64) if piece.sizes is None else piece.sizes
