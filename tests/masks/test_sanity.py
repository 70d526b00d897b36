"""What is odd about a mask is said, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.sidecar import PENALTIES
from ifguide.masks.sanity import oddities
from tests.support.datasets import write_tokens

# 0: a number, 1: an emoji, from 2 on words
NAMES = [b"42", "😂".encode(), *(f"word{i}".encode() for i in range(60))]


@pytest.fixture
def mask_of(tmp_path):
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 62, (40, 200))

    def build(selected: np.ndarray, ids: np.ndarray = drawn):
        tokens = write_tokens(tmp_path / "data", ids.tolist())
        write_aligned(
            tmp_path / "mask", tokens, selected.astype(np.uint8).reshape(-1), np.uint8, {"encoding": "binary"}
        )
        return load_aligned(tmp_path / "mask", tokens, PENALTIES), tokens

    return drawn, generator, build


def test_an_even_mask_is_not_odd(mask_of):
    ids, generator, build = mask_of
    assert oddities(*build(generator.random(ids.shape) < 0.1), NAMES.__getitem__) == []


def test_tokens_without_letters_are_named_with_their_shares(mask_of):
    ids, _, build = mask_of
    lines = oddities(*build(ids < 2), NAMES.__getitem__)
    assert "100% of the selected tokens have no letter" in lines[0] and "'42' (0)" in lines[0] and "😂" in lines[0]
    share = (ids == 0).sum() / (ids < 2).sum()
    assert any(f"{share:.0%} of the selected tokens are '42' (0)" in line for line in lines)


def test_without_a_tokenizer_a_token_is_named_by_its_id(mask_of):
    ids, generator, build = mask_of
    lines = oddities(*build((ids == 7) | (generator.random(ids.shape) < 0.02)), None)
    assert len(lines) == 1 and "token 7" in lines[0]


def test_a_phrase_that_comes_again_and_again(mask_of):
    ids, generator, build = mask_of
    selected = generator.random(ids.shape) < 0.02
    for begin in (20, 40):  # the same three words twice in every document
        ids[:, begin : begin + 3] = [5, 6, 7]
        selected[:, begin : begin + 3] = True
    selected[:, 60:80] = True
    lines = oddities(*build(selected, ids), NAMES.__getitem__)
    assert any("of the selected phrases of 3 tokens are 'word3word4word5'" in line for line in lines)


def test_a_document_that_has_most_of_the_mask(mask_of):
    ids, generator, build = mask_of
    selected = generator.random(ids.shape) < 0.02
    selected[13] = True
    (line,) = oddities(*build(selected), NAMES.__getitem__)
    assert "document 13 has" in line and "2.50% of all" in line


def test_a_small_mask_says_nothing(mask_of):
    ids, _, build = mask_of
    selected = np.zeros(ids.shape, bool)
    selected[13, :150] = True
    assert oddities(*build(selected), NAMES.__getitem__) == []
