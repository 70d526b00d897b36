"""Texts that are scored together: each once, none with more padding than is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.scorers.batching import by_length, distinct


@given(st.lists(st.sampled_from(["a", "b", "", "日本"])))
def test_every_text_is_found_again(texts: list[str]) -> None:
    unique, back = distinct(texts)
    assert unique == sorted(set(texts), key=texts.index)
    assert [unique[place] for place in back] == texts and back.shape == (len(texts),)


@given(st.lists(st.integers(1, 50)), st.integers(0, 200))
def test_batches_hold_every_text_once_and_no_more_than_the_most(lengths: list[int], most: int) -> None:
    batches = list(by_length(lengths, most))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    ordered = [lengths[index] for batch in batches for index in batch]
    assert ordered == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= most


@pytest.mark.parametrize(("most", "batches"), [(0, [[1], [0], [2]]), (7, [[1], [0, 2]]), (12, [[1, 0, 2]])])
def test_a_small_case(most: int, batches: list[list[int]]) -> None:
    assert list(by_length([3, 4, 2], most)) == batches
