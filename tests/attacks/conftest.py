"""Tiny models in fp64, of both families, and files to attack them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ifguide.models.language_model import LanguageModel
from tests.support.eval_sets import word_pieces
from tests.support.folders import write_rows
from tests.support.language_models import no_network
from tests.support.tiny_models import as_loaded, byte_tokenizer, exact_norms, tiny_neox

__all__ = ["no_network"]

# of the central difference whose error is h^8
STENCIL = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
FAMILIES = ("neox", "neox-serial", "llama", "llama-tied")


def tiny_model(family: str, **changes):
    """Of `FAMILIES`; the vocabulary is padded."""
    if family.startswith("neox"):
        return tiny_neox(use_parallel_residual=family == "neox", num_attention_heads=2, **changes)
    torch.manual_seed(11)
    settings = {
        "vocab_size": 288, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, "initializer_range": 0.3,
        "tie_word_embeddings": "tied" in family, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()
    exact_norms(model)
    return model


def slope(function: Callable[[float], float], h: float = 4e-4) -> float:
    """The derivative at 0."""
    return sum(weight * (function(n * h) - function(-n * h)) for n, weight in STENCIL.items()) / h


def tiny_lm(family: str = "neox", **changes) -> LanguageModel:
    """fp64, with a tokenizer of bytes and of two words."""
    model = tiny_model(family, **changes).double()
    model.requires_grad_(False)
    return as_loaded(model, word_pieces())


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three models of one shape."""
    folders = {}
    for number, name in enumerate(("base", "guided", "other")):
        folder = folders[name] = tmp_path_factory.mktemp(name)
        model = tiny_neox(num_attention_heads=2)
        with torch.no_grad():
            for weight in model.gpt_neox.layers.parameters():
                weight += 0.02 * number * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        model.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
    return folders


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """JSONL files by their roles."""
    folder = tmp_path_factory.mktemp("files")
    rows = {
        "prompts": [{"prompt": f"p {n}", "subset": "odd" if n % 2 else "even"} for n in range(5)],
        "targets": [{"prompt": f"say {n}", "completion": f" no{n}"} for n in range(3)],
        "toxic": [{"prompt": "you", "completion": f" fool {n}"} for n in range(6)],
        "safe": [{"prompt": "you", "completion": f" dear {n}"} for n in range(6)],
        "clean": [{"text": f"a text {n}"} for n in range(6)],
        "frames": [{"name": "plain", "text": "{prompt}"}, {"name": "play", "text": "Act: {prompt}!"}],
    }
    return {name: str(write_rows(folder / f"{name}.jsonl", found)) for name, found in rows.items()}
