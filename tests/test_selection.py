"""M3: the vectorised selection equals Algorithm 1 written as plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.errors import InputError
from ifguide.selection import SelectionSettings, graded_codes, random_selection, select


def literal_algorithm_1(scores, starts, q, window, budget, unit_tokens, eod):
    """method.md (M3) word for word; returns the set of selected positions."""
    threshold = np.quantile(np.asarray(scores, np.float64), q)
    units = []
    for document in range(len(starts) - 1):
        begin, end = starts[document], starts[document + 1]
        for low in range(begin, end, unit_tokens):
            units.append((low, min(low + unit_tokens, end), begin, end))
    count, total = [], []
    for low, high, _, _ in units:
        toxic = [i for i in range(low, high) if scores[i] > threshold and not eod[i]]
        count.append(float(len(toxic)))
        total.append(float(sum(np.float64(scores[i]) for i in toxic)))

    def normalise(values):
        low, high = min(values), max(values)
        return [(v - low) / (high - low) if high > low else 0.0 for v in values]

    c, f = normalise(count), normalise(total)
    rank = [2 * a * b / (a + b) if a + b > 0 else 0.0 for a, b in zip(c, f)]
    selected = set()
    for unit in sorted(range(len(units)), key=lambda u: (-rank[u], u)):
        low, high, begin, end = units[unit]
        for i in range(low, high):
            if scores[i] <= threshold or eod[i]:
                continue
            around = range(max(begin, i - window), min(end, i + window + 1))
            new = {j for j in around if not eod[j]} - selected
            if len(selected) + len(new) > budget:
                return selected
            selected |= new
    return selected


@st.composite
def cases(draw):
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(sum))
    total = sum(lengths)
    # few distinct values: ties in scores and in ranks are the hard part
    values = draw(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=total, max_size=total))
    eod = draw(st.lists(st.booleans(), min_size=total, max_size=total))
    return (
        np.array(values, np.float32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        draw(st.sampled_from([0.0, 0.3, 0.5, 0.9])),
        draw(st.integers(0, 3)),
        draw(st.integers(0, total + 2)),
        draw(st.integers(1, 12)),
        np.array(eod),
    )


@settings(max_examples=200, deadline=None)
@given(cases())
def test_equals_the_literal_loop(case):
    scores, starts, q, window, budget, unit_tokens, eod = case
    expected = literal_algorithm_1(scores, starts, q, window, budget, unit_tokens, eod)
    options = SelectionSettings(q, window, None, budget, unit_tokens)
    result = select(scores, starts, options, eod)
    assert set(np.flatnonzero(result.selected)) == expected
    assert result.counts["selected"] == len(expected) <= budget
    assert (result.centre[result.selected] >= 0).all() and (result.centre[~result.selected] == -1).all()


def test_large_random_input_equals_the_literal_loop():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 300, 60)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    scores = rng.standard_t(3, starts[-1]).astype(np.float32)
    eod = np.zeros(len(scores), bool)
    eod[starts[1:] - 1] = True
    for q, window, fraction, unit in [(0.99, 1, 0.02, 2048), (0.95, 2, 0.05, 64), (0.9, 0, 1.0, 7)]:
        options = SelectionSettings(q, window, fraction, None, unit)
        expected = literal_algorithm_1(scores, starts, q, window, options.budget(len(scores)), unit, eod)
        assert set(np.flatnonzero(select(scores, starts, options, eod).selected)) == expected


def test_document_order_decides_ties_and_documents_do_not_leak():
    scores = np.array([0, 5, 0, 0, 5, 0], np.float32)
    starts = np.array([0, 3, 6])
    chosen = select(scores, starts, SelectionSettings(0.5, 1, None, 3)).selected
    assert chosen.tolist() == [True, True, True, False, False, False]


def test_graded_codes_span_threshold_to_top_and_neighbours_take_their_centre():
    scores = np.zeros(100, np.float32)
    scores[[10, 50]] = [1.0, 3.0]
    selection = select(scores, np.array([0, 100]), SelectionSettings(0.9, 1, None, 100))
    codes = graded_codes(scores, selection)
    assert codes[9] == codes[10] == codes[11] == np.rint(1 + 254 * 1 / 3)
    assert codes[49] == codes[50] == codes[51] == 255
    assert (codes > 0).sum() == 6


def test_random_control_has_the_size_and_avoids_eod():
    eod = np.arange(50) % 5 == 4
    selected = random_selection(np.zeros(50), np.array([0, 50]), 30, seed=1, eod=eod)
    assert selected.sum() == 30 and not (selected & eod).any()
    assert (selected == random_selection(np.zeros(50), np.array([0, 50]), 30, seed=1, eod=eod)).all()
    with pytest.raises(InputError, match="does not fit"):
        random_selection(np.zeros(50), np.array([0, 50]), 41, seed=1, eod=eod)


def test_refuses_nan_and_impossible_settings():
    scores = np.array([0, 1, np.nan, 2], np.float32)
    with pytest.raises(InputError, match="document 1 at token 0"):
        select(scores, np.array([0, 2, 4]), SelectionSettings())
    with pytest.raises(InputError, match="no scores"):
        select(np.array([], np.float32), np.array([0]), SelectionSettings())
    with pytest.raises(InputError, match=r"quantile.*window.*exactly one"):
        SelectionSettings(1.0, -1, 0.1, 5)
