"""Small corpora of spans whose labels are known, as arrays, and the audit of one as its record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.inspection.audit import sampling
from ifguide.inspection.audit.drawing import audit_record
from ifguide.inspection.spans import Spans


@dataclass(frozen=True, eq=False)
class Corpus:
    """Attributes: sizes int64[P], abuse bool[P], selected int64[M, P]."""

    sizes: NDArray[np.int64]
    abuse: NDArray[np.bool_]
    selected: NDArray[np.int64]

    def true(self) -> dict[str, Any]:
        """The share of abuse, and of each mask what an audit estimates."""
        hit, all_abuse = (self.selected * self.abuse).sum(axis=1), (self.sizes * self.abuse).sum()
        precision, recall = hit / self.selected.sum(axis=1), hit / all_abuse
        return {
            "share": all_abuse / self.sizes.sum(),
            "precision": precision,
            "recall": recall,
            "reached": ((self.selected > 0) * self.sizes * self.abuse).sum(axis=1) / all_abuse,
            "f1": 2 * precision * recall / (precision + recall),
        }


def make_corpus(seed: int, spans: int = 3000, share: float = 0.06, whole: bool = True) -> Corpus:
    """Two masks of lines: the first finds 8 of 10 abusive ones and 1 in 100 others, the second 6 of 10 and 4 in 100;
    where not ``whole`` they select about half of the tokens of each."""
    generator = np.random.default_rng(seed)
    sizes = generator.geometric(0.08, spans) + 1
    abuse = generator.random(spans) < share
    touched = generator.random((2, spans)) < np.where(abuse, [[0.8], [0.6]], [[0.01], [0.04]])
    part = sizes if whole else np.minimum(sizes, 1 + generator.binomial(sizes, 0.5, (2, spans)))
    return Corpus(sizes, abuse, np.where(touched, part, 0))


class Walk:
    """As `SpanWalk`, over arrays, in pieces; every span is a document."""

    def __init__(self, corpus: Corpus, piece: int = 700):
        self._corpus, self._piece = corpus, piece
        self.masks = list(corpus.selected)

    def __call__(self, what: str) -> Iterator[tuple[Spans, Any, int]]:
        sizes = self._corpus.sizes
        ends = np.cumsum(sizes)
        every = Spans(np.arange(len(sizes)), ends - sizes, ends, sizes, self._corpus.selected)
        for begin in range(0, len(sizes), self._piece):
            yield every.take(slice(begin, begin + self._piece)), None, 0


def drawn(corpus: Corpus, sample: int, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
    """(the record of an audit of ``corpus``, the true label of every span in it)."""
    walk: Any = Walk(corpus)
    strata = sampling.count_strata(walk)
    draws = sampling.draw(walk, strata, sample, seed)
    record = audit_record("x", [f"mask{m}" for m in range(len(corpus.selected))], "line", strata, draws)
    abuse = corpus.abuse[draws.spans.documents]
    truth = ("abuse" if inside else "not" for inside in abuse)
    return record, {span["id"]: label for span, label in zip(record["spans"], truth)}
