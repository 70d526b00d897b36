"""Prompts of several lengths in one batch compute what each computes alone, without a cache, whatever the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from ifguide.generation import draw as generation
from ifguide.generation.draw import Drawing, Sampling, prompt_contexts
from ifguide.generation.prefix_cache import fill_up, takes_mixed_lengths
from ifguide.models.language_model import LanguageModel
from tests.support.tiny_models import as_loaded, byte_tokenizer, favour, tiny_neox

SAMPLING = Sampling(samples=2, max_new_tokens=6, top_p=0.9, seed=11)
# the first is cut to the window; the second fills it
PROMPTS = ["long " * 40, "x" * 57, "The cat", "", "a dog", "something longer than the others", "The cat", "héllo"]
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
_LLAMA = {**_SHAPE, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("gpt_neox", {**_SHAPE, "intermediate_size": 64, "max_position_embeddings": 64}),
    "gpt_neox-sequential": (
        "gpt_neox",
        {**_SHAPE, "intermediate_size": 64, "max_position_embeddings": 64, "use_parallel_residual": False,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}},
    ),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}),
    "llama": ("llama", _LLAMA),
    "qwen2": ("qwen2", _LLAMA),
    "opt": ("opt", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
                    "word_embed_proj_dim": 32, "max_position_embeddings": 64, "init_std": 0.3}),
    "gptj": ("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4,
                      "initializer_range": 0.3}),
    "gpt_neo-local": ("gpt_neo", {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 5,
                                  "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64,
                                  "initializer_range": 0.3}),
    "falcon-alibi": ("falcon", {**_SHAPE, "alibi": True, "new_decoder_architecture": False, "multi_query": True,
                                "parallel_attn": True, "bias": False}),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "mistral-sliding": ("mistral", {**_LLAMA, "sliding_window": 6}),
    "llama-longrope": ("llama", _LLAMA | {"rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 24, "factor": 2.0}}),
}  # fmt: skip
APART = {"bloom", "mistral-sliding", "llama-longrope"}
# their attention computes in float32 even where all else is float64
NO_DOUBLE = {"gptj", "gpt_neo-local", "bloom"}
CASES = [(family, torch.float32, 1e-5) for family in FAMILIES]
CASES += [(family, torch.float64, 1e-10) for family in FAMILIES if family not in NO_DOUBLE]


def language_model(family: str, dtype: torch.dtype) -> LanguageModel:
    kind, shape = FAMILIES[family]
    torch.manual_seed(5)
    config = CONFIG_MAPPING[kind](vocab_size=257, bos_token_id=0, eos_token_id=0, **shape)
    model = AutoModelForCausalLM.from_config(config).eval().to(dtype)
    return as_loaded(model, byte_tokenizer())


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The logits ``[B, V]`` of every step that is drawn."""
    seen: list[Tensor] = []
    sample: Callable[..., Tensor] = generation.sample_top_p

    def recording(logits: Tensor, *args: Any) -> Tensor:
        seen.append(logits)
        return sample(logits, *args)

    monkeypatch.setattr(generation, "sample_top_p", recording)
    return seen


@torch.no_grad()
def largest_difference(lm: LanguageModel, contexts: list, batch: list[int], drawn: list, steps: list[Tensor]) -> float:
    """Between the logits of every token drawn and those of the whole sequence alone, without padding or cache."""
    worst = 0.0
    for place, index in enumerate(batch):
        for sample, ids in enumerate(drawn[place]):
            whole = torch.tensor([contexts[index] + ids])
            alone = lm.model(whole, use_cache=False).logits[0, len(contexts[index]) - 1 :, : lm.vocab_size]
            for step, logits in enumerate(alone[: len(steps)]):
                found = steps[step][place * SAMPLING.samples + sample]
                worst = max(worst, float((found - logits).abs().max() / logits.abs().max().clamp(min=1.0)))
    return worst


@pytest.mark.parametrize(("family", "dtype", "tolerance"), CASES)
def test_every_logit_is_that_of_the_prompt_alone(
    family: str, dtype: torch.dtype, tolerance: float, recorded: list[Tensor]
) -> None:
    lm = language_model(family, dtype)
    contexts = prompt_contexts(lm, PROMPTS, SAMPLING.max_new_tokens)
    assert len(contexts[0]) == len(contexts[1]) == 64 - SAMPLING.max_new_tokens and contexts[0][0] != lm.eod
    drawing = Drawing(lm, contexts, SAMPLING, rows_per_batch=1000)
    assert takes_mixed_lengths(lm.model) == (family not in APART)
    lengths = [{len(contexts[index]) for index in batch} for batch in drawing.batches]
    assert (max(map(len, lengths)) > 1) == (family not in APART)
    batches = drawing.batches if family in APART else [list(range(len(contexts)))]  # however much is padded
    for batch in batches:
        recorded.clear()
        drawn = drawing.draw(batch)
        assert largest_difference(lm, contexts, batch, drawn, recorded) < tolerance


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama", "falcon-alibi"])
def test_tokens_do_not_depend_on_the_batch(family: str) -> None:
    lm = language_model(family, torch.float32)
    contexts = prompt_contexts(lm, PROMPTS, SAMPLING.max_new_tokens)
    drawing = Drawing(lm, contexts, SAMPLING)
    alone = [drawing.draw([index])[0] for index in range(len(contexts))]
    assert drawing.draw([*range(len(contexts))]) == alone
    assert drawing.draw([5, 1, 3]) == [alone[5], alone[1], alone[3]]


def test_prompts_are_read_once_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model("gpt_neox", torch.float32)
    read = []
    forward = type(lm.model).forward

    def counted(self: Any, input_ids: Tensor, **options: Any) -> Any:
        read.append((*input_ids.shape, options.get("attention_mask") is not None))
        return forward(self, input_ids, **options)

    monkeypatch.setattr(type(lm.model), "forward", counted)
    drawing = Drawing(lm, [[0, *range(1, length)] for length in (4, 9, 6)], SAMPLING)
    drawing.draw([0, 1, 2])
    assert read == [(3, 9, False)] + [(6, 1, True)] * 5
    read.clear()
    drawing.draw([1])  # prompts of one length need no mask
    assert read == [(1, 9, False)] + [(2, 1, False)] * 5


def test_a_broken_token_reaches_no_other_prompt() -> None:
    """Neither as padding, nor where the cache is empty, nor in rows that have ended."""
    model = tiny_neox()
    favour(model, 0, 4.0)
    tokenizer = byte_tokenizer()
    (spoilt,) = tokenizer.encode("z")
    lm = as_loaded(model.double(), tokenizer)
    contexts = [ids[1:] for ids in prompt_contexts(lm, ["The cat", "a dog", "something longer"], 8)]
    drawing = Drawing(lm, contexts, Sampling(samples=4, max_new_tokens=8, seed=11))
    expected = drawing.draw([0, 1, 2])
    assert any(len(ids) < 8 for rows in expected for ids in rows), "some rows end before others"
    used = {token for context, rows in zip(contexts, expected) for ids in [context, *rows] for token in ids}
    assert spoilt not in used
    for token in {0, spoilt, *range(257)} - used:  # an EOD is read only by rows that have ended
        model.gpt_neox.embed_in.weight.data[token] = float("nan")
    assert drawing.draw([0, 1, 2]) == expected


def test_filling_up_repeats_a_rows_own_token() -> None:
    assert fill_up([[5, 6, 7], [8], [9, 4]], "cpu").tolist() == [[5, 6, 7], [8, 8, 8], [9, 4, 4]]
