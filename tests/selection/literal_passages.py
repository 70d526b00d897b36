"""(M3b) and (M3c) word for word (masks.md), as plain loops in fp64, and inputs that are hard for a fast version."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from ifguide.data.passages.bits import LINE_END, SENTENCE_END
from ifguide.selection import (
    PassageSettings,
    ScoredCorpus,
    Source,
    WithinSettings,
)

EOD, WORD = 9, 1


def literal_passages(scores, starts, is_eod, ends, radius, shrink):
    """(first position, non-EOD tokens, score) of every line or sentence (``ends`` says where they do), or with
    ``radius`` of every token."""
    found = []
    for document in range(len(starts) - 1):
        begin, end = int(starts[document]), int(starts[document + 1])
        if radius is not None:
            for i in range(begin, end):
                around = [j for j in range(max(begin, i - radius), min(end, i + radius + 1)) if not is_eod[j]]
                if not is_eod[i]:
                    found.append((i, [i], _score(scores, around, shrink)))
            continue
        members: list[int] = []
        first = begin
        for i in range(begin, end):
            if not is_eod[i]:
                members.append(i)
            if ends[i] or i == end - 1:
                if members:
                    found.append((first, members, _score(scores, members, shrink)))
                members, first = [], i + 1
    return found


def _score(scores, members, shrink):
    total = 0.0
    for i in members:
        total += float(scores[i])
    return total / (len(members) + shrink)


def literal_selection(passages, budget, windows, shrink, positive):
    """The passages of `literal_passages` that (M3b) selects, in the order of selection, and those that are short."""
    short = [] if windows or shrink else [p for p in passages if len(p[1]) < 3]
    ranked = [p for p in passages if p not in short]
    chosen, taken = [], 0
    for passage in sorted(ranked, key=lambda p: (-p[2], p[0])):
        if positive and not passage[2] > 0:
            continue
        if taken + len(passage[1]) > budget:
            break
        chosen.append(passage)
        taken += len(passage[1])
    return chosen, short


def literal_within(scores, chosen, num_tokens, settings, random_key):
    """The positions that (M3c) takes of the ``chosen`` passages."""
    share, spans = (Fraction(str(x)).limit_denominator(10**9) for x in (settings.share, settings.spans))

    def key(i):
        first = {"highest": -float(scores[i]), "lowest": float(scores[i]), "random": random_key(i)}[settings.order]
        return first, i

    if settings.rule == "each":
        taken = []
        for _, members, _ in chosen:
            taken += sorted(members, key=key)[: math.ceil(share * len(members))]
        return sorted(taken)
    every = [i for _, members, _ in chosen for i in members]
    return sorted(sorted(every, key=key)[: math.floor(share * spans * num_tokens)])


def literal_strengths(scores_of_tokens):
    """Graded codes of selected tokens with these scores (a passage's for each of its tokens)."""
    low, high = min(scores_of_tokens), max(scores_of_tokens)
    if low == high:
        return [255] * len(scores_of_tokens)
    top = float(np.quantile(np.array(scores_of_tokens, np.float64), 0.999))
    width = max(top - low, float(np.finfo(np.float64).tiny))
    return [round(1 + 254 * min(1.0, (score - low) / width)) for score in scores_of_tokens]


@dataclass
class Case:
    """One input: scores of documents, cut into corpora, and the parameters."""

    scores: np.ndarray
    lengths: list[int]
    is_eod: np.ndarray
    boundaries: np.ndarray
    corpora: list[int]  # documents of each corpus
    chunk_tokens: int
    settings: PassageSettings
    budget: int

    @property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def source(self, scores: np.ndarray | None = None) -> Source:
        values = self.scores if scores is None else scores
        parts, first = [], 0
        for number, documents in enumerate(self.corpora):
            inside = slice(*self.starts[[first, first + documents]])
            tokens = np.where(self.is_eod, EOD, WORD).astype(np.uint16)
            starts = self.starts[first : first + documents + 1] - self.starts[first]
            parts.append(
                ScoredCorpus(f"corpus{number}", values[inside], starts, tokens[inside], EOD, self.boundaries[inside])
            )
            first += documents
        return Source(parts, self.chunk_tokens)

    def literal(self, scores: np.ndarray | None = None):
        s = self.settings
        ends = None if s.kind == "window" else [bool(b & s.end_bit) for b in self.boundaries]
        radius = s.radius if s.kind == "window" else None
        values = self.scores if scores is None else scores
        return literal_passages(values, self.starts, self.is_eod, ends, radius, s.shrink)

    def expected(self, budget: int | None = None):
        s = self.settings
        passages = self.literal()
        limit = self.budget if budget is None else budget
        return literal_selection(passages, limit, s.kind == "window", s.shrink, s.positive)


_FEW = st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.25, 1.0, 3.0, 1e-42, -3e38, 0.1, 0.7])
_ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[str, ...] = ("line", "sentence", "window")) -> Case:
    """Ties, empty and one-token documents, EOD anywhere, budgets 0 and everything, chunks that cut passages."""
    lengths = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 9, 17]), min_size=1, max_size=8).filter(sum))
    total = sum(lengths)
    values = draw(st.sampled_from([_FEW, _FEW, _ANY, st.just(1.5)]))
    scores = np.array(draw(st.lists(values, min_size=total, max_size=total)), np.float32)
    is_eod = np.array(draw(st.lists(st.sampled_from([False] * 7 + [True]), min_size=total, max_size=total)), bool)
    bits = st.sampled_from([0, 0, 0, SENTENCE_END, LINE_END | SENTENCE_END])
    boundaries = np.array(draw(st.lists(bits, min_size=total, max_size=total)), np.uint8)
    corpora, left = [], len(lengths)
    while left:
        corpora.append(draw(st.integers(1, left)))
        left -= corpora[-1]
    settings = PassageSettings(
        draw(st.sampled_from(kinds)),
        draw(st.integers(0, 6)),
        draw(st.sampled_from([0.0, 0.0, 2.5])),
        draw(st.booleans()),
    )
    budget = draw(st.one_of(st.sampled_from([0, 1, total]), st.integers(0, total)))
    return Case(scores, lengths, is_eod, boundaries, corpora, draw(st.integers(1, 20)), settings, budget)


@st.composite
def within_settings(draw: st.DrawFn) -> WithinSettings:
    share = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.29, 1 / 3, 1.0])
    return WithinSettings(
        draw(share), draw(share), draw(st.sampled_from(["each", "global"])),
        draw(st.sampled_from(["highest", "random", "lowest"])), draw(st.integers(0, 3)),
    )  # fmt: skip
