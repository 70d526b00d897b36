"""Tiny models in double precision whose insides are known, and the work table of an analysis on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from ifguide.analysis.inputs import Bench, Subject
from ifguide.analysis.options import Analyse
from ifguide.models.language_model import LanguageModel
from ifguide.scorers.base import Scorer
from tests.support.tiny_models import as_loaded, byte_tokenizer, tiny_neox

WIDTH = 16


def small_neox(**changes: Any) -> Any:
    """Three blocks of 16 x 32, in double precision; attention and MLP in parallel."""
    settings = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 3}
    return _noisy(tiny_neox(**(settings | changes)).double())


def small_llama(**changes: Any) -> Any:
    """The same as a Llama: gated MLPs, no biases."""
    torch.manual_seed(8)
    settings = {
        "vocab_size": 288, "hidden_size": WIDTH, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 64, "initializer_range": 0.3,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return _noisy(LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval().double())


def small_gpt2() -> Any:
    """The same as a GPT-2, whose matrices are transposed."""
    torch.manual_seed(9)
    config = GPT2Config(
        vocab_size=288, n_embd=WIDTH, n_head=2, n_inner=32, n_layer=3, n_positions=64, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return _noisy(GPT2LMHeadModel(config).eval().double())


FAMILIES: dict[str, Callable[[], Any]] = {
    "neox": small_neox,
    "neox, one after the other": lambda: small_neox(use_parallel_residual=False),
    "llama": small_llama,
    "gpt2": small_gpt2,
}


def plain_neox(**changes: Any) -> Any:
    """Blocks that add nothing: what a test plants is all there is."""
    model = small_neox(**changes)
    for block in model.gpt_neox.layers:
        for parameter in block.parameters():
            parameter.data.zero_()
    return model


def plant(model: Any, block: int, neuron: int, direction: torch.Tensor, strength: float) -> None:
    """A neuron of `plain_neox` that is always on, by 2, and writes ``strength * direction``."""
    mlp = model.gpt_neox.layers[block].mlp
    # gelu(2) is about 1.95
    mlp.dense_h_to_4h.bias.data[neuron] = 2.0
    mlp.dense_4h_to_h.weight.data[:, neuron] = strength * direction


def free_direction(model: Any, character: str | None) -> torch.Tensor:
    """A direction of `plain_neox` that no embedding has and that says ``character``, and no other token does (None:
    not even that one)."""
    d = torch.zeros(WIDTH, dtype=torch.float64)
    d[0], d[1] = 1.0, -1.0  # the norm takes the mean away
    head = model.get_output_embeddings().weight.data
    model.gpt_neox.embed_in.weight.data[:, :2] = 0.0
    head[:, :2] = 0.0
    if character is not None:
        head[token(character)] = 6.0 * d
    model.gpt_neox.final_layer_norm.weight.data.fill_(1.0)
    model.gpt_neox.final_layer_norm.bias.data.zero_()
    return d


def subject(model: Any, label: str = "base") -> Subject:
    """A model that is loaded already."""
    lm = as_loaded(model, byte_tokenizer())

    def load(_: Path) -> LanguageModel:
        return lm

    return Subject(label, Path("nowhere"), load)


def save(model: Any, folder: Path) -> Path:
    """A folder with ``model`` and the byte tokenizer."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make_bench(
    folder: Path, models: Mapping[str, Any], toxic: Sequence[str], safe: Sequence[str], **more: Any
) -> Bench:
    """The table for ``models`` and queries ``prompt N`` + completion, in double precision.

    Args:
        toxic, safe: completions.
        more: other options of `Analyse`.
    """
    paths = [f"{label}={save(model, folder / label)}" for label, model in models.items()]
    files = {
        name: write_jsonl(folder / f"{name}.jsonl", [
            {"prompt": f"{name[0]}{number}", "completion": text} for number, text in enumerate(texts)
        ])
        for name, texts in (("toxic", toxic), ("safe", safe)) if texts
    }  # fmt: skip
    options = {
        "models": paths, "output": str(folder / "out"), "toxic_queries": files.get("toxic"),
        "safe_queries": files.get("safe"), "dtype": "float64", "resamples": 200, "scorer": "lexicon",
    }  # fmt: skip
    return Bench(Analyse(**(options | more)))


class CountsZ(Scorer):
    """The share of z among a text's characters: what a planted model says is known by it."""

    name, labels = "z", ("toxicity",)

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        return {"toxicity": np.array([text.count("z") / max(1, len(text)) for text in texts])}


def token(character: str) -> int:
    """Its id for the byte tokenizer."""
    (found,) = as_loaded(tiny_neox(), byte_tokenizer()).encode([character])[0]
    return found


def _noisy(model: Any) -> Any:
    """Norms that are no identity, and biases that are not 0."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model
