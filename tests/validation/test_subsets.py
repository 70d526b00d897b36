"""Subsets of loss terms: their size, their spans, their seeds."""

from __future__ import annotations

import numpy as np
import pytest

from ifguide.errors import InputError
from ifguide.validation.subsets import DOCUMENT, Draw, subset

LENGTHS = np.array([5, 0, 40, 8, 3, 17, 90])
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
ALL = (0, len(LENGTHS))


def spans_of(span_tokens: int, documents: tuple[int, int] = ALL) -> list[set[int]]:
    """Literally: every document from its start in spans."""
    found = []
    for document in range(*documents):
        places = list(range(STARTS[document], STARTS[document + 1]))
        found += [set(places[at : at + span_tokens]) for at in range(0, len(places), span_tokens)]
    return found


@pytest.mark.parametrize("k", range(6))
def test_a_subset_is_whole_spans_but_one_and_fills_its_budget(k: int) -> None:
    draw = Draw(fraction=0.3, span_tokens=8, seed=3)
    places = subset(STARTS, ALL, draw, k)
    assert len(places) == int(0.3 * LENGTHS.sum()) and (np.diff(places) > 0).all()
    left, cut = set(places.tolist()), 0
    for span in spans_of(8):
        inside = span & left
        cut += 0 < len(inside) < len(span)
        left -= inside
    assert not left and cut <= 1


def test_subsets_depend_on_seed_and_number_alone() -> None:
    draw = Draw(fraction=0.2, seed=1)
    first = subset(STARTS, ALL, draw, 4)
    np.testing.assert_array_equal(first, subset(STARTS, ALL, draw, 4))
    assert not np.array_equal(first, subset(STARTS, ALL, draw, 5))
    assert not np.array_equal(first, subset(STARTS, ALL, Draw(fraction=0.2, seed=2), 4))


def test_only_the_given_documents_are_drawn_from() -> None:
    places = subset(STARTS, (2, 5), Draw(fraction=0.9), 0)
    assert places.min() >= STARTS[2] and places.max() < STARTS[5] and len(places) == int(0.9 * 51)


def test_every_span_is_as_likely() -> None:
    counts = np.zeros(LENGTHS.sum())
    draws = 4000
    for k in range(draws):
        counts[subset(STARTS, ALL, Draw(fraction=0.05, span_tokens=4), k)] += 1
    whole = [sorted(span) for span in spans_of(4) if len(span) == 4]
    rates = np.array([counts[span].mean() for span in whole]) / draws
    assert rates.std() < 0.2 * rates.mean()


def test_documents_are_whole() -> None:
    places = set(subset(STARTS, ALL, Draw(unit=DOCUMENT, fraction=0.5), 1).tolist())
    owners = [set(range(STARTS[d], STARTS[d + 1])) for d in range(len(LENGTHS)) if LENGTHS[d]]
    assert all(owner <= places or not owner & places for owner in owners)
    assert 0 < len(places) <= int(0.5 * LENGTHS.sum())


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"unit": "line"}, "--unit line: must be one of span, document"),
        ({"fraction": 1.5}, "--fraction 1.5: must lie between 0 and 1"),
        ({"span_tokens": 0}, "--span-tokens 0: must be at least 1"),
        ({"seed": -1}, "--seed -1: must not be negative"),
    ],
)
def test_impossible_draws_are_refused(values: dict, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        Draw(**values)


def test_less_than_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="less than one"):
        subset(STARTS, ALL, Draw(fraction=0.001), 0)
