"""Filters of documents against a loop and a sort, and the budget that they share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from ifguide.errors import NumericsError
from ifguide.selection import ScoredCorpus, Source
from ifguide.selection.documents import (
    MEAN,
    SCORER,
    SUM,
    TOXIC,
    document_values,
    drop_documents,
    word_shares,
)
from tests.selection.literal import cases


@settings(max_examples=150, deadline=None)
@given(cases())
def test_values_and_order_equal_the_literal_loop(case) -> None:
    for rank_by in (SUM, MEAN, TOXIC, SCORER):
        literal = []
        for begin, end in zip(case.starts, case.starts[1:]):
            total, count, worst = 0.0, 0, -np.inf
            for i in range(begin, end):
                if case.is_eod[i]:
                    continue
                total, count = total + float(case.scores[i]), count + 1
                worst = max(worst, float(case.scores[i]))
            value = {MEAN: total / max(count, 1), SCORER: worst}.get(rank_by, total)
            literal.append(value if count else -np.inf)
        values = document_values(case.source, rank_by)
        assert values.tolist() == literal
        budget = case.settings.budget(len(case.scores))
        left, expected = budget, []
        ranked = [u for u in sorted(range(len(literal)), key=lambda u: (-literal[u], u))
                  if case.lengths[u] and literal[u] > -np.inf]  # fmt: skip
        for unit in ranked:
            left -= case.lengths[unit]
            if left < 0:
                break
            expected.append(unit)
        dropped, counts = drop_documents(case.source, values, budget)
        assert dropped.tolist() == sorted(expected)
        # removed <= L < removed + next, wherever there is a next one
        removed, rest = counts["tokens_removed"], ranked[len(expected) :]
        assert removed <= budget and (not rest or budget < removed + case.lengths[rest[0]])
        assert counts["documents_ranked"] == len(ranked)


def source(scores: list[float], starts: list[int], chunk: int = 1000, tokens: list[int] | None = None) -> Source:
    ids = None if tokens is None else np.array(tokens, np.uint16)
    corpus = ScoredCorpus("c", np.array(scores, np.float32), np.array(starts), ids, None if ids is None else 9)
    return Source([corpus], chunk)


def test_rankings_differ_where_they_should() -> None:
    one = source([1, 1, 1, 1, 3, -2, 0.5], [0, 4, 6, 7])
    assert document_values(one, SUM).tolist() == [4.0, 1.0, 0.5]
    assert document_values(one, MEAN).tolist() == [1.0, 0.5, 0.5]
    assert document_values(one, SCORER).tolist() == [1.0, 3.0, 0.5]


@pytest.mark.parametrize("rank_by", [SUM, MEAN, SCORER])
def test_chunks_change_nothing(rank_by: str) -> None:
    random = np.random.default_rng(2)
    scores, starts = random.normal(size=300).tolist(), [0, 7, 7, 150, 151, 300]
    whole = document_values(source(scores, starts), rank_by)
    assert document_values(source(scores, starts, chunk=13), rank_by).tolist() == whole.tolist()


def test_words_count_without_the_end_of_documents_and_stop_where_there_are_none() -> None:
    one = source([0] * 8, [0, 3, 6, 8], tokens=[1, 2, 9, 1, 1, 9, 2, 9])
    shares = word_shares(one, lambda ids: np.flatnonzero(np.isin(ids, (1, 9))))
    assert shares.tolist() == [0.5, 1.0, 0.0]
    dropped, counts = drop_documents(one, shares, 8, above=0.0)
    assert dropped.tolist() == [0, 1] and counts["documents_ranked"] == 2 and counts["tokens_removed"] == 6


def test_a_score_that_is_no_number() -> None:
    with pytest.raises(NumericsError, match="document 1"):
        document_values(source([0, np.nan], [0, 1, 2]), SUM)
