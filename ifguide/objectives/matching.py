"""Benign counterparts of the tokens that a mask selects, so that a classifier of them cannot live on word identity.

Each selected token gets one unselected token of its own document, or of the sample where the document has none left,
at least `GAP` tokens away from every selected one. It is the one whose frequency in the training data and whose
position are nearest; no token serves twice. All of this is a function of the sample alone.

Shapes: T tokens of a sample.
"""

from __future__ import annotations

import numpy as np

GAP = 8


def matched(
    tokens: np.ndarray, selected: np.ndarray, allowed: np.ndarray, log_frequency: np.ndarray, eod: int | None
) -> np.ndarray:
    """bool[T]: the benign counterparts, at most as many as there are selected tokens.

    The distance of two tokens is the difference of their log frequencies plus that of their positions over T.

    Args:
        tokens: int64[T].
        selected: bool[T].
        allowed: bool[T], what may be a counterpart; selected tokens and their surroundings are left out here.
        log_frequency: float32[V].
        eod: the token that ends documents, or None.
    """
    found = np.zeros(len(tokens), bool)
    places = np.flatnonzero(selected)
    if not len(places):
        return found
    free = allowed & ~_near(selected)
    documents = np.zeros(len(tokens), np.int64)
    if eod is not None:
        documents[1:] = np.cumsum(tokens == eod)[:-1]
        free &= tokens != eod
    frequency = log_frequency[tokens]
    for place in places:
        candidates = np.flatnonzero(free & (documents == documents[place]))
        if not len(candidates):
            candidates = np.flatnonzero(free)
        if not len(candidates):
            break
        distance = np.abs(frequency[candidates] - frequency[place]) + np.abs(candidates - place) / len(tokens)
        nearest = candidates[np.argmin(distance)]
        found[nearest], free[nearest] = True, False
    return found


def _near(selected: np.ndarray) -> np.ndarray:
    """bool[T]: fewer than `GAP` tokens away from a selected one."""
    spread = np.convolve(selected.astype(np.int64), np.ones(2 * GAP - 1, np.int64))
    return spread[GAP - 1 : GAP - 1 + len(selected)] > 0
