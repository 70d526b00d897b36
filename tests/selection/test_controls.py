from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from ifguide.errors import InputError
from ifguide.selection import ScoredCorpus, SelectionSettings, Source, random_positions, ranked_documents
from tests.selection.literal import cases, whole


def with_eod(chunk_tokens: int) -> Source:
    """50 tokens in two corpora; every fifth ends a document."""
    tokens = np.arange(50) % 5
    return Source(
        [
            ScoredCorpus("a", np.zeros(20, np.float32), np.arange(0, 21, 5), tokens[:20], 4),
            ScoredCorpus("b", np.zeros(30, np.float32), np.arange(0, 31, 5), tokens[20:], 4),
        ],
        chunk_tokens,
    )


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 30, 40])
def test_random_positions_have_the_size_avoid_eod_and_do_not_depend_on_chunks(count):
    positions = random_positions(with_eod(7), count, seed=1)
    assert len(np.unique(positions)) == count and (np.diff(positions) > 0).all() and (positions % 5 != 4).all()
    assert positions.tolist() == random_positions(with_eod(1000), count, seed=1).tolist()
    if 0 < count < 40:
        assert positions.tolist() != random_positions(with_eod(7), count, seed=2).tolist()


@pytest.mark.parametrize("count", [6, 34])
def test_random_positions_are_uniform(count):
    hits = np.zeros(50)
    for seed in range(600):
        hits[random_positions(with_eod(1000), count, seed)] += 1
    share = hits[np.arange(50) % 5 != 4] / 600
    deviation = np.sqrt(count / 40 * (1 - count / 40) / 600)
    assert np.abs(share - count / 40).max() < 4.5 * deviation


def test_more_than_there_are():
    with pytest.raises(InputError, match="41 tokens does not fit into 40 eligible"):
        random_positions(with_eod(7), 41, seed=0)


@settings(max_examples=120, deadline=None)
@given(cases())
def test_ranked_documents_equal_the_literal_loop(case):
    threshold = np.quantile(case.scores.astype(np.float64), case.settings.threshold_quantile)
    units = [
        [i for i in range(begin, end) if float(case.scores[i]) > threshold and not case.is_eod[i]]
        for begin, end in zip(case.starts, case.starts[1:])
        if begin < end
    ]
    numbers = [number for number, length in enumerate(case.lengths) if length]
    count = [float(len(toxic)) for toxic in units]
    total = []
    for toxic in units:
        running = 0.0
        for i in toxic:
            running += float(case.scores[i])
        total.append(running)
    c, f = ([(v - min(x)) / (max(x) - min(x)) if max(x) > min(x) else 0.0 for v in x] for x in (count, total))
    r = [2 * a * b / (a + b) if a + b > 0 else 0.0 for a, b in zip(c, f)]
    left, expected = case.settings.budget(len(case.scores)), []
    for unit in sorted(range(len(units)), key=lambda u: (-r[u], u)):
        if not units[unit]:
            continue
        left -= case.lengths[numbers[unit]]
        if left < 0:
            break
        expected.append(numbers[unit])
    dropped, counts, found = ranked_documents(case.source, case.settings)
    assert found == threshold and dropped.tolist() == sorted(expected)
    assert counts["tokens_removed"] == sum(case.lengths[document] for document in expected)


def test_a_document_that_does_not_fit_ends_the_removal():
    source = whole([9, 9, 9, 0, 0, 0, 5, 0, 0], [3, 3, 2, 1])
    assert ranked_documents(source, SelectionSettings(0.5, 1, None, 4))[0].tolist() == [0]
    assert ranked_documents(source, SelectionSettings(0.5, 1, None, 2))[0].tolist() == []
    assert ranked_documents(source, SelectionSettings(0.5, 1, None, 9))[0].tolist() == [0, 2]
