"""τ and the tokens above it from one pass: exact whatever the sample says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.selection import tail
from ifguide.selection.tail import toxic_tail, toxic_tokens
from tests.selection.literal import whole
from tests.selection.test_quantile import floats


def check(scores: np.ndarray, q: float, chunk_tokens: int = 7) -> None:
    source = whole(scores, [len(scores)], chunk_tokens)
    threshold, positions, found = toxic_tail(source, q, lambda span: None)
    expected = np.quantile(scores.astype(np.float64), q)
    assert threshold == expected
    above = np.flatnonzero(scores.astype(np.float64) > expected)
    np.testing.assert_array_equal(positions, above)
    np.testing.assert_array_equal(found, scores[above])
    np.testing.assert_array_equal(toxic_tokens(source, threshold)[0], above)


@settings(max_examples=200, deadline=None)
@given(st.lists(floats, min_size=1, max_size=60), st.one_of(st.floats(0, 0.9999999), st.sampled_from([0.0, 0.5, 0.99])))
@pytest.mark.parametrize("piece", [1, 4, 1024])
def test_equals_numpy_with_samples_good_and_bad(piece, values, q):
    kept = tail.SAMPLE_PIECES, tail.SAMPLE_PIECE
    tail.SAMPLE_PIECES, tail.SAMPLE_PIECE = 2, piece
    try:
        check(np.array(values, np.float32), q)
    finally:
        tail.SAMPLE_PIECES, tail.SAMPLE_PIECE = kept


@pytest.mark.parametrize("high_where_sampled", [True, False], ids=["sample too high", "sample too low"])
def test_a_misleading_sample_costs_two_passes_and_no_exactness(monkeypatch, high_where_sampled):
    monkeypatch.setattr(tail, "SAMPLE_PIECES", 2)
    monkeypatch.setattr(tail, "SAMPLE_PIECE", 50)
    calls = []
    quantile = tail.quantile
    monkeypatch.setattr(tail, "quantile", lambda *given: calls.append(1) or quantile(*given))
    scores = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    for sampled in (slice(0, 50), slice(4950, 5000)):
        scores[sampled] += 10 if high_where_sampled else -10
    check(scores, 0.9, 512)
    assert calls


def test_one_pass_where_the_sample_is_good(monkeypatch):
    monkeypatch.setattr(tail, "quantile", lambda *_: pytest.fail("the sample was good"))
    scores = np.random.default_rng(0).standard_t(3, 300_000).astype(np.float32)
    passes = []
    source = whole(scores, [len(scores)], 1 << 16)
    for q in (0.0, 0.5, 0.9, 0.99, 0.999):
        assert toxic_tail(source, q, lambda span: passes.append(len(span)))[0] == np.quantile(
            scores.astype(np.float64), q
        )
    assert sum(passes) == 5 * len(scores)
