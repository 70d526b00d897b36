from __future__ import annotations

import pytest

from ifguide.scorers.lexicon import WEIGHTS
from ifguide.scorers.registry import load_scorer


def test_words_add_up_to_less_than_one() -> None:
    scorer = load_scorer("lexicon")
    scores = scorer.score(["a kind tree", "You IDIOT!", "idiot, stupid idiot", "idiotproof", ""])["toxicity"]
    assert scores.tolist() == pytest.approx([0, 0.7, 1 - 0.3 * 0.5 * 0.3, 0, 0])
    assert scorer.name == "lexicon" and scorer.main == "toxicity"


def test_every_word_has_one_weight() -> None:
    words = [word for listed in WEIGHTS.values() for word in listed.split()]
    assert len(words) == len(set(words)) and all(word == word.lower() and word.isalpha() for word in words)
    assert all(0 < weight < 1 for weight in WEIGHTS)
