"""Precision and recall of a mask against planted spans, counted by hand."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ifguide.quickstart.truth import PlantedTokens, mask_quality, planted_tokens


def test_character_spans_become_token_spans():
    words = {word: index for index, word in enumerate(["a", "bb", "ccc", "dd"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = ["a bb ccc", "bb ccc dd a"]
    planted = [{"document": 1, "spans": [[3, 9]]}]
    found = planted_tokens(texts, planted, tokenizer, np.array([0, 4, 9]))  # each document ends with an EOD
    assert found.spans.tolist() == [[5, 7]]
    assert np.flatnonzero(found.inside).tolist() == [5, 6]


def test_quality_by_hand():
    inside = np.zeros(20, bool)
    inside[4:8] = inside[10:15] = True
    planted = PlantedTokens(np.array([[4, 8], [10, 15]]), inside)
    selected = np.zeros(20, bool)
    selected[[5, 12, 0]] = True  # a quarter of the first span, a fifth of the second, one outside
    quality = mask_quality(selected, planted)
    assert quality == {"precision": pytest.approx(2 / 3), "recall": 0.5, "fraction": 0.15, "tokens": 3}
    assert mask_quality(np.zeros(20, bool), planted)["recall"] == 0
