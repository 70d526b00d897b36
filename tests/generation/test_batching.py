"""Batches of prompts: every prompt once, no more rows than fit, little padding."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.generation import batching
from ifguide.generation.batching import plan_batches, rows_that_fit
from tests.support.tiny_models import as_loaded, byte_tokenizer, tiny_neox


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), max_size=60),
    samples=st.integers(1, 30),
    new_tokens=st.integers(1, 40),
    budget=st.integers(1, 20_000),
    mixed=st.booleans(),
)
def test_batches_keep_their_promises(
    lengths: list[int], samples: int, new_tokens: int, budget: int, mixed: bool
) -> None:
    batches = list(
        plan_batches(lengths, samples, new_tokens, lambda length: max(1, budget // length), mixed=mixed)
    )  # fmt: skip
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(order, reverse=True)
    for batch in batches:
        found = [lengths[index] for index in batch]
        rows = max(1, budget // (max(found) + new_tokens))
        assert len(batch) == 1 or len(batch) * max(samples, len(set(found))) <= rows
        assert 2 * (min(found) + new_tokens) >= max(found) + new_tokens
        assert mixed or len(set(found)) == 1


def test_few_prompts_of_many_lengths_are_one_batch() -> None:
    assert len(list(plan_batches([6 + 2 * place for place in range(12)], 25, 20, lambda _: 512, mixed=True))) == 1
    assert len(list(plan_batches([6 + 2 * place for place in range(12)], 25, 20, lambda _: 512, mixed=False))) == 12


def test_shorter_prompts_have_larger_batches() -> None:
    """The budget counts tokens: one long prompt among many does not make all batches small."""
    lengths = [180] * 4 + [20] * 40
    sizes = [len(batch) for batch in plan_batches(lengths, 5, 20, lambda length: 2000 // length, mixed=True)]
    assert sizes == [2, 2, 10, 10, 10, 10]


def test_rows_follow_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = as_loaded(tiny_neox(), byte_tokenizer())
    row = 2 * 2 * 32 * 10 * 4 + 8 * 4 * 288  # keys and values of 10 tokens in 2 layers of 32, and logits
    monkeypatch.setattr(batching, "_memory_beside_weights", lambda lm: 8 * 100 * row)
    assert rows_that_fit(lm, 10) == 100 and rows_that_fit(lm, 60) < 100
    monkeypatch.setattr(batching, "_memory_beside_weights", lambda lm: 0)
    assert rows_that_fit(lm, 10) == 1
    monkeypatch.undo()
    assert rows_that_fit(lm, 10) == 512
