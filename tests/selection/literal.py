"""Algorithm 1 word for word (method.md, M3), and inputs that are hard for a fast version of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from ifguide.selection import ScoredCorpus, SelectionSettings, Source


def literal_algorithm_1(scores, starts, q, window, budget, unit_tokens, eod):
    """Selected position -> the toxic token that brought it in, in the order of selection."""
    threshold = np.quantile(np.asarray(scores, np.float64), q)
    units = []
    for document in range(len(starts) - 1):
        begin, end = int(starts[document]), int(starts[document + 1])
        for low in range(begin, end, unit_tokens):
            units.append((low, min(low + unit_tokens, end), begin, end))
    count, total = [], []
    for low, high, _, _ in units:
        toxic = [i for i in range(low, high) if float(scores[i]) > threshold and not eod[i]]
        count.append(float(len(toxic)))
        running = 0.0
        for i in toxic:
            running += float(scores[i])
        total.append(running)

    def normalise(values):
        low, high = min(values), max(values)
        return [(v - low) / (high - low) if high > low else 0.0 for v in values]

    c, f = normalise(count), normalise(total)
    rank = [2 * a * b / (a + b) if a + b > 0 else 0.0 for a, b in zip(c, f)]
    selected: dict[int, int] = {}
    for unit in sorted(range(len(units)), key=lambda u: (-rank[u], u)):
        low, high, begin, end = units[unit]
        for i in range(low, high):
            if not float(scores[i]) > threshold or eod[i]:
                continue
            around = range(max(begin, i - window), min(end, i + window + 1))
            new = [j for j in around if not eod[j] and j not in selected]
            if len(selected) + len(new) > budget:
                return selected
            selected.update(dict.fromkeys(new, i))
    return selected


@dataclass
class Case:
    """One input: scores of documents, cut into corpora, and the parameters."""

    scores: np.ndarray
    lengths: list[int]
    is_eod: np.ndarray
    corpora: list[int]  # documents of each corpus
    chunk_tokens: int
    settings: SelectionSettings

    @property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def source(self) -> Source:
        parts, first = [], 0
        for number, documents in enumerate(self.corpora):
            inside = slice(*self.starts[[first, first + documents]])
            # token 9 ends a document; the others do not matter
            tokens = np.where(self.is_eod, 9, 1).astype(np.uint16)
            starts = self.starts[first : first + documents + 1] - self.starts[first]
            parts.append(ScoredCorpus(f"corpus{number}", self.scores[inside], starts, tokens[inside], 9))
            first += documents
        return Source(parts, self.chunk_tokens)

    def expected(self) -> dict[int, int]:
        s = self.settings
        budget = s.budget(len(self.scores))
        return literal_algorithm_1(
            self.scores, self.starts, s.threshold_quantile, s.window, budget, s.unit_tokens, self.is_eod
        )


_ABOVE_ONE = float(np.nextafter(np.float32(1), np.float32(2)))
# few distinct values: ties in scores and ranks are the hard part, neighbours in float32 the next
_FEW = st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.25, 1.0, _ABOVE_ONE, 3.0, 1e-42, -3e38])
_ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
_SAME = st.just(1.5)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Ties, empty and one-token documents, all equal, everything toxic, budget 0, 1 and everything, several corpora."""
    lengths = draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 9]), min_size=1, max_size=10).filter(sum))
    total = sum(lengths)
    values = draw(st.sampled_from([_FEW, _FEW, _ANY, _SAME]))
    scores = np.array(draw(st.lists(values, min_size=total, max_size=total)), np.float32)
    if draw(st.booleans()):
        is_eod = np.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)), bool)
    else:
        is_eod = np.zeros(total, bool)
        ends = np.cumsum(lengths)[np.array(lengths) > 0] - 1
        is_eod[ends] = draw(st.booleans())
    corpora, left = [], len(lengths)
    while left:
        corpora.append(draw(st.integers(1, left)))
        left -= corpora[-1]
    settings = SelectionSettings(
        threshold_quantile=draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 0.99])),
        window=draw(st.integers(0, 4)),
        max_fraction=None,
        max_tokens=draw(st.one_of(st.sampled_from([0, 1, total, total + 2]), st.integers(0, total))),
        unit_tokens=draw(st.integers(1, 12)),
    )
    return Case(scores, lengths, is_eod, corpora, draw(st.integers(1, 20)), settings)


def whole(scores, lengths, chunk_tokens: int = 1 << 22) -> Source:
    """One corpus without EOD tokens."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Source([ScoredCorpus("corpus", np.asarray(scores, np.float32), starts)], chunk_tokens)
