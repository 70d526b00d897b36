from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BloomConfig, BloomForSequenceClassification, MistralConfig, MistralForSequenceClassification

from ifguide.errors import InputError, NumericsError
from ifguide.generation.draw import (
    Drawing,
    Sampling,
    continuation_texts,
    prompt_contexts,
    sample_continuations,
)
from ifguide.generation.rad import Rad
from ifguide.generation.rad_cache import CausalReader, causal_reader
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.scorers.base import Scorer
from ifguide.scorers.huggingface import ClassifierScorer, HuggingFaceScorer
from ifguide.scorers.registry import load_scorer
from tests.generation.literal_generation import literal_continuations
from tests.support.tiny_models import byte_tokenizer, save_classifier
from tests.support.tiny_scorers import save_causal

PROMPTS = ["The cat", "", "a dog", "The rat", "The cat", "something longer than the others"]
SAMPLING = Sampling(samples=3, max_new_tokens=6, top_p=0.9, seed=11)
TOP_K, WEIGHT = 5, 4.0


@pytest.fixture(scope="module")
def lm(model_dir: Path) -> LanguageModel:
    return load_language_model(model_dir, torch.float64)


def causal(folder: Path, family: str, **options: Any) -> HuggingFaceScorer:
    scorer = HuggingFaceScorer(save_causal(folder, family, **options), "toxic")
    scorer.model.double()
    return scorer


@torch.no_grad()
def literal_reward(scorer: ClassifierScorer, tokens: list[int]) -> float:
    """1 - probability of the second label, the whole text through the classifier's own forward."""
    ids = torch.tensor([tokens or [0]])  # an empty text stands for its start token
    return 1.0 - float(scorer.model(input_ids=ids).logits[0].softmax(0)[1])


class Vowels(Scorer):
    """Share of vowels: a text scorer that knows no tokens."""

    name, labels = "vowels", ("toxicity",)
    asked = 0

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        self.asked += len(texts)
        return {"toxicity": np.array([_vowels(text) for text in texts])}


def _vowels(text: str) -> float:
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)


@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_cached_rewards_equal_the_literal_ones(lm: LanguageModel, tmp_path: Path, family: str) -> None:
    scorer = causal(tmp_path, family)
    rad = Rad(lm, scorer, WEIGHT, TOP_K)
    assert rad.describe()["cached"]
    contexts = prompt_contexts(lm, PROMPTS, 6)
    literal = (TOP_K, WEIGHT, lambda tokens: literal_reward(scorer, tokens))
    slow = [literal_continuations(lm, c, SAMPLING, earlier=int(i == 4), rad=literal) for i, c in enumerate(contexts)]
    # the empty prompt has no token to cache, and its text is decoded: compare it where it is no broken character
    fast = sample_continuations(lm, contexts, SAMPLING, rad=rad)
    assert [fast[i] for i in (0, 2, 3, 4, 5)] == [slow[i] for i in (0, 2, 3, 4, 5)]
    assert slow != [literal_continuations(lm, c, SAMPLING, earlier=int(i == 4)) for i, c in enumerate(contexts)]
    assert any(len(ids) < 6 for rows in slow for ids in rows)  # EOD was a candidate, and was drawn


def test_any_scorer_equals_the_literal_rule(lm: LanguageModel) -> None:
    rad = Rad(lm, Vowels(), WEIGHT, TOP_K)
    assert not rad.describe()["cached"]
    contexts = prompt_contexts(lm, PROMPTS, 6)
    literal = (TOP_K, WEIGHT, lambda tokens: 1.0 - _vowels(lm.decode([tokens])[0]))
    slow = [literal_continuations(lm, c, SAMPLING, earlier=int(i == 4), rad=literal) for i, c in enumerate(contexts)]
    assert sample_continuations(lm, contexts, SAMPLING, rad=rad) == slow
    assert slow != sample_continuations(lm, contexts, SAMPLING)


def test_it_composes_with_temperature_top_k_and_top_p(lm: LanguageModel, tmp_path: Path) -> None:
    scorer = causal(tmp_path, "gpt2")
    sampling = replace(SAMPLING, temperature=0.7, top_k=3, top_p=0.8)
    contexts = prompt_contexts(lm, ["The cat"], 6)
    literal = (TOP_K, -WEIGHT, lambda tokens: literal_reward(scorer, tokens))
    expected = [literal_continuations(lm, contexts[0], sampling, rad=literal)]
    assert sample_continuations(lm, contexts, sampling, rad=Rad(lm, scorer, -WEIGHT, TOP_K)) == expected


def test_weight_0_and_all_candidates_is_plain_sampling(lm: LanguageModel, tmp_path: Path) -> None:
    contexts = prompt_contexts(lm, PROMPTS, 6)
    rad = Rad(lm, causal(tmp_path, "neox"), 0.0, 10_000)
    assert sample_continuations(lm, contexts, SAMPLING, rad=rad) == sample_continuations(lm, contexts, SAMPLING)


@pytest.mark.parametrize("rows_per_batch", [1, 7, 1000])
def test_batches_change_nothing(lm: LanguageModel, tmp_path: Path, rows_per_batch: int) -> None:
    contexts = prompt_contexts(lm, PROMPTS, 6)
    rad = Rad(lm, causal(tmp_path, "gpt2"), WEIGHT, TOP_K)
    expected = sample_continuations(lm, contexts, SAMPLING, rad=rad)
    assert sample_continuations(lm, contexts, SAMPLING, rows_per_batch=rows_per_batch, rad=rad) == expected


def test_it_lowers_what_it_avoids_and_a_negative_weight_raises_it(lm: LanguageModel) -> None:
    scorer = Vowels()
    contexts = prompt_contexts(lm, ["The cat", "a dog", "on"], 10)
    means = []
    for weight in (-40.0, 0.0, 40.0):
        drawn = sample_continuations(lm, contexts, Sampling(10, 10), rad=Rad(lm, scorer, weight, 20))
        texts = [text for c, rows in zip(contexts, drawn) for text in continuation_texts(lm, c, rows)]
        means.append(float(scorer.score(texts)["toxicity"].mean()))
    assert means[0] > means[1] + 0.02 and means[1] >= means[2] and means[0] > means[2] + 0.05


def test_equal_texts_are_scored_once(lm: LanguageModel) -> None:
    scorer = Vowels()
    contexts = prompt_contexts(lm, ["The cat"], 1)
    sample_continuations(lm, contexts, Sampling(samples=25, max_new_tokens=1), rad=Rad(lm, scorer, 1.0, 20))
    assert 0 < scorer.asked <= 20


def test_a_longer_text_than_the_classifier_takes_goes_to_the_scorer(lm: LanguageModel, tmp_path: Path) -> None:
    scorer = causal(tmp_path, "gpt2", positions=20)
    reader = causal_reader(scorer, lm)
    assert isinstance(reader, CausalReader) and reader.takes([1] * 14, 6) and not reader.takes([1] * 15, 6)
    contexts = prompt_contexts(lm, ["x" * 30], 6)
    rows = sample_continuations(lm, contexts, SAMPLING, rad=Rad(lm, scorer, WEIGHT, TOP_K))
    assert len(rows[0]) == 3 and scorer.truncated > 0


def test_a_text_too_long_for_the_cache_takes_no_other_with_it(lm: LanguageModel, tmp_path: Path) -> None:
    """Which way a prompt's rewards are read follows from the prompt and not from its batch."""
    rad = Rad(lm, causal(tmp_path, "gpt2", positions=20), WEIGHT, TOP_K)
    contexts = prompt_contexts(lm, ["The cat", "", "x" * 30, "a dog", "eight or so"], 6)
    drawing = Drawing(lm, contexts, SAMPLING, rad=rad)
    assert [rad.reads_from_cache(context, 6) for context in contexts] == [True, False, False, True, True]
    assert [sorted(batch) for batch in drawing.batches] == [[0, 3, 4], [2], [1]]
    together = sample_continuations(lm, contexts, SAMPLING, rad=rad)
    assert together == [drawing.draw([index])[0] for index in range(len(contexts))]


def test_which_classifiers_can_be_cached(lm: LanguageModel, tmp_path: Path) -> None:
    words = HuggingFaceScorer(save_classifier(tmp_path / "bert", labels=["ok", "toxic"], problem_type=None), "toxic")
    assert causal_reader(words, lm) is None  # looks at later tokens, other tokens
    shape = {"vocab_size": 257, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "pad_token_id": 0}
    sliding = MistralForSequenceClassification(
        MistralConfig(intermediate_size=16, num_key_value_heads=1, sliding_window=4, **shape)
    )
    bloom = BloomForSequenceClassification(BloomConfig(**{**shape, "n_head": 2, "n_layer": 1}))  # no position_ids
    for model in (sliding, bloom):
        scorer = ClassifierScorer(model, byte_tokenizer(), {"toxicity": 1}, sigmoid=False, name="x")
        assert causal_reader(scorer, lm) is None
        rows = sample_continuations(
            lm, prompt_contexts(lm, ["The cat"], 3), Sampling(2, 3), rad=Rad(lm, scorer, 1.0, 4)
        )
        assert len(rows[0]) == 2


def test_bad_options(lm: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one candidate"):
        Rad(lm, Vowels(), 1.0, 0)
    with pytest.raises(InputError, match="must be a number"):
        Rad(lm, Vowels(), float("nan"))
    folder = save_classifier(tmp_path, labels=["a", "b", "c"], problem_type=None)
    with pytest.raises(InputError, match="name one of them"):
        Rad(lm, load_scorer(f"hf:{folder}"))


def test_a_reward_that_is_no_number_stops_the_run(lm: LanguageModel, tmp_path: Path) -> None:
    class Broken(Vowels):
        def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
            return {"toxicity": np.full(len(texts), np.nan)}

    contexts = prompt_contexts(lm, ["The cat"], 6)
    with pytest.raises(NumericsError, match="scored nan"):
        sample_continuations(lm, contexts, SAMPLING, rad=Rad(lm, Broken()))
    scorer = causal(tmp_path, "gpt2")
    scorer.model.score.weight.data.fill_(float("nan"))
    with pytest.raises(NumericsError, match="not finite"):
        sample_continuations(lm, contexts, SAMPLING, rad=Rad(lm, scorer))
