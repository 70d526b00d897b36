"""M3: the selection in chunks equals Algorithm 1 written as plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from ifguide.errors import InputError
from ifguide.selection import ScoredCorpus, SelectionSettings, Source, paint_windows, select
from tests.selection.literal import Case, cases, whole


def painted(source, selection) -> np.ndarray:
    """The binary mask of all chunks, uint8[N]."""
    ones = np.ones(len(selection.centres), np.uint8)
    return np.concatenate([paint_windows(source, span, selection, ones) for span in source.spans()])


@settings(max_examples=300, deadline=None)
@given(cases())
def test_equals_the_literal_loop(case):
    expected = case.expected()
    source = case.source
    selection = select(source, case.settings)
    assert np.flatnonzero(painted(source, selection)).tolist() == sorted(expected)
    assert selection.counts["selected"] == selection.gains.sum() == len(expected) <= case.settings.max_tokens


@pytest.mark.parametrize(
    ("q", "window", "fraction", "unit"),
    [(0.99, 1, 0.02, 2048), (0.95, 2, 0.05, 64), (0.9, 0, 1.0, 7), (0.0, 3, 0.5, 9)],
)
def test_large_random_input_equals_the_literal_loop(q, window, fraction, unit):
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, 300, 60).tolist()
    scores = generator.standard_t(3, sum(lengths)).astype(np.float32)
    is_eod = generator.random(len(scores)) < 0.02
    case = Case(
        scores, lengths, is_eod, [20, 1, 39], 1000, SelectionSettings(q, window, fraction, None, unit)
    )  # fmt: skip
    selection = select(case.source, case.settings)
    assert np.flatnonzero(painted(case.source, selection)).tolist() == sorted(case.expected())


def test_a_score_between_two_neighbours_of_float32_is_compared_in_float64():
    """τ lies between two adjacent float32 values, and rounds to the upper one."""
    low = np.nextafter(np.float32(1), np.float32(2))
    high = np.nextafter(low, np.float32(2))
    selection = select(whole([low, high], [2]), SelectionSettings(0.75, 0, None, 2))
    assert float(low) < selection.threshold < float(high) == np.float32(selection.threshold)
    assert selection.centres.tolist() == [1]


def test_document_order_decides_ties_and_windows_stay_in_their_document():
    source = whole([0, 5, 0, 0, 5, 0], [3, 3])
    assert painted(source, select(source, SelectionSettings(0.5, 1, None, 3))).tolist() == [1, 1, 1, 0, 0, 0]
    source = whole([0, 0, 5, 5, 0, 0], [3, 3])
    assert painted(source, select(source, SelectionSettings(0.5, 2, None, 3))).tolist() == [1, 1, 1, 0, 0, 0]


def test_counts():
    generator = np.random.default_rng(1)
    source = whole(generator.normal(size=1000), [100] * 10)
    counts = select(source, SelectionSettings(0.9, 1, 0.1, None, 50)).counts
    assert counts["tokens"] == 1000
    assert counts["toxic"] == 100 and counts["budget"] == 100 and counts["units"] == 20
    assert 98 <= counts["selected"] <= 100 and 0 < counts["units_with_selection"] <= 20


def test_refuses_nothing_and_impossible_settings():
    with pytest.raises(InputError, match="no scores"):
        Source([ScoredCorpus("corpus", np.zeros(0, np.float32), np.zeros(3, np.int64))])
    with pytest.raises(InputError, match=r"quantile.*window.*exactly one"):
        SelectionSettings(1.0, -1, 0.1, 5)
