from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from ifguide.selection import (
    SelectionSettings,
    graded_strengths,
    paint_documents,
    paint_positions,
    paint_windows,
    select,
)
from tests.selection.literal import cases, whole


def test_graded_codes_span_threshold_to_top_and_neighbours_take_their_centre():
    scores = np.zeros(100)
    scores[[10, 50]] = [1.0, 3.0]
    source = whole(scores, [100], chunk_tokens=11)
    selection = select(source, SelectionSettings(0.9, 1, None, 100))
    strengths = graded_strengths(selection)
    codes = np.concatenate([paint_windows(source, span, selection, strengths) for span in source.spans()])
    assert codes[9] == codes[10] == codes[11] == np.rint(1 + 254 * 1 / 3)
    assert codes[49] == codes[50] == codes[51] == 255
    assert (codes > 0).sum() == 6


@settings(max_examples=120, deadline=None)
@given(cases())
def test_graded_codes_equal_the_literal_ones(case):
    claimed = case.expected()
    expected = np.zeros(len(case.scores), np.uint8)
    threshold = np.quantile(case.scores.astype(np.float64), case.settings.threshold_quantile)
    if claimed:
        top = np.quantile([float(case.scores[centre]) for centre in claimed.values()], 0.999)
        for position, centre in claimed.items():
            share = (float(case.scores[centre]) - threshold) / max(top - threshold, np.finfo(np.float64).tiny)
            expected[position] = np.rint(1 + 254 * min(max(share, 0), 1))
    selection = select(case.source, case.settings)
    strengths = graded_strengths(selection)
    codes = [paint_windows(case.source, span, selection, strengths) for span in case.source.spans()]
    assert np.concatenate(codes).tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_positions_and_documents(case):
    source, starts = case.source, case.starts
    positions = np.arange(0, len(case.scores), 3)
    codes = np.concatenate([paint_positions(span, positions) for span in source.spans()])
    assert np.flatnonzero(codes).tolist() == positions.tolist()

    documents = np.flatnonzero(np.array(case.lengths))[::2]
    inside = np.zeros(len(case.scores), bool)
    for document in documents:
        inside[starts[document] : starts[document + 1]] = True
    codes = np.concatenate([paint_documents(source, span, documents) for span in source.spans()])
    assert codes.tolist() == (inside & ~case.is_eod).astype(int).tolist()
