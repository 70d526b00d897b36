"""RAD in our order and in the published one, against both written out on five tokens; conditions on a tag."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.generation.draw import prompt_contexts, sample_continuations
from ifguide.generation.job import condition_of, generate_file
from ifguide.generation.options import OURS, PAPER, GenerateOptions, Sampling
from ifguide.generation.rad import Rad
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.scorers.base import Scorer
from ifguide.system.files import read_json, read_jsonl, write_jsonl

LOGITS = [2.0, 1.5, 1.0, 0.2, -1.5]
REWARDS = {0: 0.10, 1: 0.35, 2: 1.30, 3: 0.95, 4: 1.0}  # one beyond what a probability gives: it is clamped
SAMPLING = Sampling(top_p=0.9, temperature=1.25, samples=1, max_new_tokens=1)


class Constant(Scorer):
    name, labels = "constant", ("toxicity",)

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        return {"toxicity": np.zeros(len(texts))}


class Against(Scorer):
    """Rewards every text but those that end as these do."""

    name, labels = "against", ("toxicity",)

    def __init__(self, endings: list[str]):
        super().__init__()
        self._endings = tuple(endings)

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        return {"toxicity": np.array([float(text.endswith(self._endings)) for text in texts])}


def rewards(candidates: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[REWARDS[int(one)] for one in row] for row in candidates], dtype=torch.float64)


def softmax(values: list[float]) -> list[float]:
    weights = [math.exp(value) for value in values]
    return [weight / sum(weights) for weight in weights]


def nucleus(p: list[float], top_p: float) -> list[float]:
    kept, mass = [0.0] * len(p), 0.0
    for i in sorted(range(len(p)), key=lambda i: -p[i]):
        if mass >= top_p:
            break
        kept[i], mass = p[i], mass + p[i]
    return [one / sum(kept) for one in kept]


def literal(order: str, weight: float, top_k: int) -> list[float]:
    """The distribution of the next token."""
    z, t = LOGITS, SAMPLING.temperature
    if order == PAPER:
        inside = [p > 0 for p in nucleus(softmax([one / t for one in z]), SAMPLING.top_p)]
        z = [one / t if keep else -math.inf for one, keep in zip(z, inside)]
    candidates = sorted(range(5), key=lambda i: -z[i])[:top_k]
    steered = [
        z[i] + weight * min(max(REWARDS[i], 0.0), 1.0) if i in candidates else -math.inf for i in range(5)
    ]  # fmt: skip
    if order == PAPER:
        return softmax(steered)
    return nucleus(softmax([one / t for one in steered]), SAMPLING.top_p)


def steered(order: str, weight: float | None, top_k: int) -> list[float]:
    lm: Any = SimpleNamespace(vocab_size=5)
    rad = Rad(lm, Constant(), weight, top_k, order)
    logits = torch.tensor([LOGITS], dtype=torch.float64)
    found, top_p, temperature = rad.steered(logits, rewards, torch.zeros(1, 0), SAMPLING)
    p = (found[0] / temperature).softmax(0).tolist()
    return p if top_p == 1.0 else nucleus(p, top_p)


@pytest.mark.parametrize("top_k", [1, 3, 5])
@pytest.mark.parametrize("weight", [-2.0, 0.0, 1.0, 50.0])
@pytest.mark.parametrize("order", [OURS, PAPER])
def test_five_tokens(order: str, weight: float, top_k: int) -> None:
    assert steered(order, weight, top_k) == pytest.approx(literal(order, weight, top_k), abs=1e-12)


def test_the_orders_differ_and_have_weights_of_their_own() -> None:
    # token 4 lies outside the nucleus: the published order never draws it, however large its reward
    assert literal(PAPER, 50.0, 5)[4] == 0.0 < literal(OURS, 50.0, 5)[4]
    assert steered(PAPER, None, 5) == pytest.approx(literal(PAPER, 50.0, 5), abs=1e-12)
    assert steered(OURS, None, 5) == pytest.approx(literal(OURS, 10.0, 5), abs=1e-12)


@pytest.fixture(scope="module")
def lm(model_dir: Path) -> LanguageModel:
    return load_language_model(model_dir, torch.float64)


def test_the_published_order_draws_from_the_nucleus_of_the_model_alone(lm: LanguageModel) -> None:
    contexts = prompt_contexts(lm, ["The cat", "a dog"], 3)
    greedy = Sampling(samples=3, max_new_tokens=3, top_p=1e-6, seed=3)
    plain = sample_continuations(lm, contexts, greedy)
    firsts = [[*lm.without_start(context), rows[0][0]] for context, rows in zip(contexts, plain) if rows[0]]
    against = Against([text[-1] for text in lm.decode(firsts)])
    # the nucleus is one token: no reward brings another one in, where ours lets it
    assert sample_continuations(lm, contexts, greedy, rad=Rad(lm, against, 500.0, 10_000, PAPER)) == plain
    assert sample_continuations(lm, contexts, greedy, rad=Rad(lm, against, 500.0, 10_000, OURS)) != plain


def test_a_condition_stands_after_the_start_and_survives_a_long_prompt(lm: LanguageModel) -> None:
    start = lm.reader.prompt("")
    plain, tagged = prompt_contexts(lm, ["The cat"], 4), prompt_contexts(lm, ["The cat"], 4, condition=7)
    assert tagged[0] == [*start, 7, *plain[0][len(start) :]]
    long = prompt_contexts(lm, ["x" * 500], 4, condition=7)[0]
    assert len(long) == lm.max_length - 4 and long[: len(start) + 1] == [*start, 7]


def test_a_conditioned_file_says_so_and_never_draws_the_tag(model_dir: Path, lm: LanguageModel, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "The cat"}, {"prompt": "a"}])
    sampling = Sampling(samples=30, max_new_tokens=8, top_p=1.0)
    for name, condition in (("plain", None), ("tagged", "e")):
        options = GenerateOptions(device="cpu", condition=condition)
        generate_file(model_dir, tmp_path / "prompts.jsonl", tmp_path / f"{name}.jsonl", sampling, options)
    said = {
        name: [text for row in read_jsonl(tmp_path / f"{name}.jsonl") for text in row["continuations"]]
        for name in ("plain", "tagged")
    }
    assert any("e" in text for text in said["plain"]) and not any("e" in text for text in said["tagged"])
    made = read_json(tmp_path / "tagged.jsonl.json")
    assert made["condition"] == {"token": "e", "id": lm.reader.tokenizer.token_id("e")}
    assert "condition" not in read_json(tmp_path / "plain.jsonl.json")


def test_what_is_no_condition(lm: LanguageModel) -> None:
    assert condition_of(lm, "5") == lm.reader.tokenizer.token_id("5")  # a name goes before a number
    with pytest.raises(InputError, match="neither a token"):
        condition_of(lm, "<|good|>")
    with pytest.raises(InputError, match="neither a token"):
        condition_of(lm, "99999")
    with pytest.raises(InputError, match="ends a text"):
        condition_of(lm, "<|endoftext|>")
