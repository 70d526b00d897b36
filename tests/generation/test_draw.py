from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.generation import draw as generation
from ifguide.generation.draw import (
    Drawing,
    Sampling,
    continuation_texts,
    generate,
    prompt_contexts,
    sample_continuations,
)
from ifguide.models.language_model import LanguageModel, load_language_model
from tests.generation.literal_generation import literal_continuations
from tests.support.tiny_models import as_loaded, byte_tokenizer, favour, tiny_neox

PROMPTS = ["The cat", "", "a dog", "The rat", "héllo", "The cat", "something longer than the others"]
SAMPLING = Sampling(samples=5, max_new_tokens=8, top_p=0.9, seed=11)


@pytest.fixture(scope="module")
def lm(model_dir: Path) -> LanguageModel:
    return load_language_model(model_dir, torch.float64)


def test_equals_one_prompt_at_a_time_without_cache(lm: LanguageModel) -> None:
    contexts = prompt_contexts(lm, PROMPTS, 8)
    slow = [literal_continuations(lm, context, SAMPLING, earlier=int(i == 5)) for i, context in enumerate(contexts)]
    assert sample_continuations(lm, contexts, SAMPLING) == slow
    lengths = {len(ids) for rows in slow for ids in rows}
    assert 8 in lengths and len(lengths) > 2  # the comparison has seen both ends: EOD and the limit


def test_temperature_and_top_p_reach_the_sampler(lm: LanguageModel) -> None:
    sampling = replace(SAMPLING, top_p=0.6, temperature=0.8)
    context = prompt_contexts(lm, ["The cat"], 8)
    assert sample_continuations(lm, context, sampling) == [literal_continuations(lm, context[0], sampling)]


@pytest.mark.parametrize("top_k", [1, 3, 200, 1000])
def test_top_k(lm: LanguageModel, top_k: int) -> None:
    sampling = replace(SAMPLING, top_k=top_k, temperature=1.3)
    context = prompt_contexts(lm, ["The cat"], 8)
    assert sample_continuations(lm, context, sampling) == [literal_continuations(lm, context[0], sampling)]


def test_sliding_window_models_use_their_own_cache() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=257, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval().double()
    lm = as_loaded(model, byte_tokenizer())
    contexts = prompt_contexts(lm, ["a prompt beyond the window", "short"], 8)
    slow = [literal_continuations(lm, context, SAMPLING) for context in contexts]
    assert sample_continuations(lm, contexts, SAMPLING) == slow


@pytest.mark.parametrize("rows_per_batch", [1, 10, 1000])
def test_batches_change_nothing(lm: LanguageModel, rows_per_batch: int) -> None:
    contexts = prompt_contexts(lm, PROMPTS, 8)
    expected = sample_continuations(lm, contexts, SAMPLING)
    assert sample_continuations(lm, contexts, SAMPLING, rows_per_batch=rows_per_batch) == expected


def test_a_prompt_has_its_samples_wherever_it_stands(lm: LanguageModel) -> None:
    contexts = prompt_contexts(lm, PROMPTS, 8)
    expected = sample_continuations(lm, contexts, SAMPLING)
    assert sample_continuations(lm, contexts[3:5], SAMPLING) == expected[3:5]
    some = [6, 4, 0, 3]
    assert sample_continuations(lm, [contexts[i] for i in some], SAMPLING) == [expected[i] for i in some]
    more = sample_continuations(lm, contexts, replace(SAMPLING, samples=9))
    assert [rows[:5] for rows in more] == expected


def test_equal_prompts_and_other_seeds_draw_anew(lm: LanguageModel) -> None:
    contexts = prompt_contexts(lm, PROMPTS, 8)
    drawn = sample_continuations(lm, contexts, SAMPLING)
    assert contexts[0] == contexts[5] and drawn[0] != drawn[5]
    assert sample_continuations(lm, contexts, replace(SAMPLING, seed=12)) != drawn


def test_generate_returns_texts_without_eod(model_dir: Path) -> None:
    texts = generate(model_dir, ["The cat", "a dog"], samples=30, max_new_tokens=6, seed=1)
    assert [len(rows) for rows in texts] == [30, 30]
    assert all(isinstance(text, str) and "<|endoftext|>" not in text for rows in texts for text in rows)
    assert any(len(text.encode()) < 6 for rows in texts for text in rows)
    assert generate(model_dir, ["The cat", "a dog"], samples=30, max_new_tokens=6, seed=1) == texts
    assert generate(model_dir, [], samples=2) == []


def test_rows_that_pad_the_embedding_are_never_drawn(model_dir: Path) -> None:
    lm = load_language_model(model_dir)
    assert lm.vocab_size == 257 and lm.model.config.vocab_size == 288
    drawn = sample_continuations(lm, [[0]], Sampling(samples=300, max_new_tokens=5, top_p=1.0, temperature=5.0))
    seen = {token for row in drawn[0] for token in row}
    assert max(seen) < 257 and len(seen) > 150


def test_prompt_and_continuation_make_the_text(lm: LanguageModel) -> None:
    (context,) = prompt_contexts(lm, ["caf"], 8)
    accent = lm.encode(["é x"])[0]
    assert continuation_texts(lm, context, [accent, [], lm.encode([" au lait"])[0]]) == ["é x", "", " au lait"]
    # the prompt ends inside a character: the continuation completes it
    assert continuation_texts(lm, context + accent[:1], [accent[1:]]) == ["é x"]


def test_prompts_cut_and_uncut_of_one_length(lm: LanguageModel) -> None:
    contexts = prompt_contexts(lm, ["a" * 55, "b" * 80], 8)
    assert len(contexts[0]) == len(contexts[1]) and contexts[0][0] == lm.eod != contexts[1][0]
    sampling = replace(SAMPLING, samples=2)
    expected = [literal_continuations(lm, context, sampling) for context in contexts]
    assert sample_continuations(lm, contexts, sampling) == expected


def test_long_prompts_keep_their_end(lm: LanguageModel) -> None:
    (context,) = prompt_contexts(lm, ["ab" * 100], 20)
    assert len(context) == 64 - 20 and context == lm.encode(["ab" * 22])[0]
    with pytest.raises(InputError, match="leaves no room"):
        prompt_contexts(lm, ["a"], 64)


def test_without_eod_the_prompt_stands_alone(no_eod_dir: Path) -> None:
    lm = load_language_model(no_eod_dir, torch.float64)
    contexts = prompt_contexts(lm, ["The cat"], 8)
    assert contexts == lm.encode(["The cat"])
    drawn = sample_continuations(lm, contexts, SAMPLING)
    assert drawn == [literal_continuations(lm, contexts[0], SAMPLING)]
    assert {len(row) for row in drawn[0]} == {8}
    with pytest.raises(InputError, match="prompt 1 has no tokens"):
        generate(no_eod_dir, ["a", ""])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"temperature": 0.0}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_options_out_of_range(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**change)


def test_unusable_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        generate("some-org/some-model", ["a"])
    with pytest.raises(InputError, match=r"has no config\.json"):
        generate(tmp_path, ["a"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has no tokenizer"):
        generate(tmp_path, ["a"])
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be loaded"):
        generate(tmp_path, ["a"])


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    tiny_neox(vocab_size=200).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match="257 tokens, the model 200"):
        generate(tmp_path, ["a"])


def test_broken_weights_name_the_prompt(tmp_path: Path) -> None:
    model = tiny_neox()
    tokenizer = byte_tokenizer()
    (spoilt,) = tokenizer.encode("z")
    model.gpt_neox.embed_in.weight.data[spoilt] = float("nan")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(NumericsError, match=rf"model {tmp_path}: logits after prompt 2 \('bz'\) are not finite in"):
        generate(tmp_path, ["aa", "bb", "bz"], samples=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_break_on_the_way_name_the_prompt(value: float) -> None:
    """The prompts are sound; a token that is drawn later is not."""
    model = tiny_neox()
    tokenizer = byte_tokenizer()
    (spoilt,) = tokenizer.encode("z")
    favour(model, spoilt, 30.0)
    lm = as_loaded(model, tokenizer)
    contexts = prompt_contexts(lm, ["aa", "b"], 8)
    assert sample_continuations(lm, contexts, SAMPLING)[0][0] == [spoilt] * 8
    forward = model.forward

    def broken(input_ids: torch.Tensor, **options: Any) -> Any:
        output = forward(input_ids=input_ids, **options)
        if input_ids.shape[1] == 1:
            output.logits[5:, :, 9] = value  # rows of prompt 1
        return output

    model.forward = broken
    drawing = Drawing(lm, contexts, SAMPLING, rows_per_batch=1000)
    with pytest.raises(NumericsError, match=r"^model GPTNeoXForCausalLM: logits after prompt 1 \('b'\) [^\n]*$"):
        drawing.draw([0, 1])


def test_too_little_memory_halves_the_batch(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = prompt_contexts(lm, PROMPTS, 8)
    expected = sample_continuations(lm, contexts, SAMPLING)
    sample, tried = generation._sample_batch, []

    def small(lm: LanguageModel, prompts: dict, *args: Any) -> torch.Tensor:
        tried.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError
        return sample(lm, prompts, *args)

    monkeypatch.setattr(generation, "_sample_batch", small)
    assert sample_continuations(lm, contexts, SAMPLING, rows_per_batch=1000) == expected
    assert max(tried) > 2 and {1, 2} & set(tried)
    monkeypatch.setattr(generation, "_sample_batch", lambda *_: small(lm, [0] * 3))
    with pytest.raises(torch.OutOfMemoryError):
        sample_continuations(lm, contexts[:1], SAMPLING)
