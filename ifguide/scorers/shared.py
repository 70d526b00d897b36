"""A scorer whose texts all ranks score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ifguide.scorers.base import Scorer
from ifguide.scorers.wrapper import WrappedScorer
from ifguide.system.ranks import Ranks

# a piece for one rank: enough to sort by length and fill batches
_TEXTS_AT_ONCE = 512


class SharedScorer(WrappedScorer):
    """``inner``, on all ranks.

    Args:
        spec: by which the other ranks load it.
        inner: the scorer, as this rank has it.
        ranks: with the job ``score`` (`scoring_job`).
    """

    def __init__(self, spec: str, inner: Scorer, ranks: Ranks):
        super().__init__(inner)
        self._spec, self._ranks = spec, ranks

    def score(self, texts: Sequence[str], *, offset: int = 0) -> dict[str, np.ndarray]:
        """As `Scorer.score`; the checks are the inner scorer's, on each piece."""
        starts = range(0, len(texts), _TEXTS_AT_ONCE)
        pieces = [(offset + start, texts[start : start + _TEXTS_AT_ONCE]) for start in starts]
        parts = list(self._ranks.map("score", (self._spec,), pieces))
        return {label: np.concatenate([np.empty(0), *(part[label] for part in parts)]) for label in self.labels}

    def _probabilities(self, texts: list[str]) -> dict[str, np.ndarray]:
        return self.score(texts)


Scores = Callable[[tuple[int, Sequence[str]]], dict[str, np.ndarray]]


def scoring_job(load: Callable[[str], Scorer]) -> Callable[[str], Scores]:
    """The job ``score``: work on pieces ``(number of the first text, texts)`` with the scorer of a spec.

    Args:
        load: spec -> scorer; remembers those it has loaded.
    """

    def prepare(spec: str) -> Scores:
        scorer = load(spec)
        return lambda piece: scorer.score(piece[1], offset=piece[0])

    return prepare
