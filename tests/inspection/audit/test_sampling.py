"""Strata and draws against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ifguide.errors import InputError
from ifguide.inspection.audit import sampling
from ifguide.inspection.audit.sampling import Strata, allot, count_strata, draw
from tests.inspection.audit.corpora import Corpus, Walk, make_corpus


def walk_of(corpus: Corpus, piece: int = 700) -> Any:
    return Walk(corpus, piece)


def literal_strata(corpus: Corpus) -> dict[tuple[int, ...], list[int]]:
    """The spans of every combination of masks."""
    found: dict[tuple[int, ...], list[int]] = {}
    for span in range(len(corpus.sizes)):
        key = tuple(m for m in range(len(corpus.selected)) if corpus.selected[m, span] > 0)
        found.setdefault(key, []).append(span)
    return found


def test_every_combination_that_occurs_is_a_stratum() -> None:
    corpus = make_corpus(1, whole=False)
    third = np.where(np.arange(len(corpus.sizes)) % 50 == 0, 1, 0)
    corpus = Corpus(corpus.sizes, corpus.abuse, np.vstack([corpus.selected, third]))
    strata, expected = count_strata(walk_of(corpus)), literal_strata(corpus)
    assert len(strata.patterns) == len(expected)
    for h, pattern in enumerate(strata.patterns.tolist()):
        members = expected[tuple(m for m in range(3) if pattern >> m & 1)]
        assert strata.spans[h] == len(members)
        assert strata.tokens[h] == sum(int(corpus.sizes[span]) for span in members)
        assert strata.selected[h].tolist() == corpus.selected[:, members].sum(axis=1).tolist()


def test_a_token_that_is_drawn_brings_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws are tokens of the stratum, counted one by one in a list of all of them."""
    corpus = make_corpus(2)
    strata = count_strata(walk_of(corpus))
    draws = draw(walk_of(corpus, 130), strata, 60, seed=5)
    generator = np.random.default_rng(5)
    expected: dict[int, int] = {}
    members = literal_strata(corpus)
    for h, pattern in enumerate(strata.patterns.tolist()):
        own = members[tuple(m for m in range(2) if pattern >> m & 1)]
        tokens = [span for span in own for _ in range(int(corpus.sizes[span]))]
        if draws.complete[h]:
            expected |= dict.fromkeys(own, 1)
            continue
        for rank in generator.integers(0, len(tokens), draws.allotted[h]).tolist():
            expected[tokens[rank]] = expected.get(tokens[rank], 0) + 1
    assert dict(zip(draws.spans.documents.tolist(), draws.times.tolist())) == expected
    assert draws.allotted.sum() == draws.times.sum() == 60
    assert draws.spans.sizes.tolist() == corpus.sizes[draws.spans.documents].tolist()


def test_the_same_seed_draws_the_same_whatever_the_pieces() -> None:
    corpus = make_corpus(3)
    strata = count_strata(walk_of(corpus))
    one, same, other = (draw(walk_of(corpus, piece), strata, 80, seed) for piece, seed in ((700, 1), (31, 1), (700, 2)))
    assert one.spans.documents.tolist() == same.spans.documents.tolist() != other.spans.documents.tolist()
    assert one.times.tolist() == same.times.tolist()
    assert one.spans.documents.tolist() != sorted(one.spans.documents.tolist()), "the order tells nothing"


def strata_of(spans: list[int], tokens: list[int]) -> Strata:
    return Strata(np.arange(len(spans)), np.array(spans), np.array(tokens), np.zeros((len(spans), 1), np.int64))


def test_half_of_the_draws_go_by_strata_half_by_tokens() -> None:
    draws, complete = allot(100, strata_of([1000, 1000], [9000, 1000]))
    assert draws.tolist() == [25 + 45, 25 + 5] and not complete.any()


def test_a_small_stratum_is_taken_whole_and_the_others_get_the_rest() -> None:
    draws, complete = allot(100, strata_of([1000, 7, 400], [9000, 100, 900]))
    assert complete.tolist() == [False, True, False]
    assert draws[1] == 7 and draws.sum() == 100
    draws, complete = allot(100, strata_of([30, 20], [900, 300]))
    assert draws.tolist() == [30, 20] and complete.all(), "there are no more"


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(InputError, match="4 strata of spans need at least 8"):
        allot(7, strata_of([9] * 4, [90] * 4))
    assert sampling.FEWEST == 2
