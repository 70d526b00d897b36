"""Benign counterparts of selected tokens: near in frequency and position, of the same document, none twice."""

from __future__ import annotations

import numpy as np

from ifguide.objectives.matching import GAP, matched


def test_matching_prefers_frequency_position_and_the_same_document() -> None:
    tokens = np.array([5, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 0, 5, 4, 4, 4])
    frequency = np.arange(6, dtype=np.float32)
    selected = tokens == 99
    selected[0] = True  # token 5, of the first document
    allowed = np.ones(16, bool)
    found = matched(tokens, selected, allowed, frequency, eod=0)
    # 12 has the very same token, and is of another document; 10 is nearest in frequency among 8 to 10
    assert found.nonzero()[0].tolist() == [10]
    assert matched(tokens, selected, allowed, frequency, eod=None).nonzero()[0].tolist() == [12]
    allowed[8:11] = False
    assert matched(tokens, selected, allowed, frequency, eod=0).nonzero()[0].tolist() == [12]
    assert not matched(tokens, selected, np.zeros(16, bool), frequency, eod=0).any()
    assert not matched(tokens, np.zeros(16, bool), np.ones(16, bool), frequency, eod=0).any()
    many = np.zeros(40, bool)
    many[[3, 30]] = True
    both = matched(np.ones(40, int), many, np.ones(40, bool), frequency, eod=None)
    assert both.sum() == 2 and all(abs(place - other) >= GAP for place in both.nonzero()[0] for other in (3, 30))
