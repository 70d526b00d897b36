"""Tiny models (fp64 where a test compares numbers), a dataset and query files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ifguide.data.indexed import TokenDataset
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.influence.curvature.job import fit_factors
from ifguide.models.tracked import ScoredModel, load_model
from tests.support.datasets import random_documents, write_tokens
from tests.support.tiny_models import exact_norms

VOCAB = 512
WINDOW = 16
EOD = 0
ARCHITECTURES = ("neox", "llama", "gpt2", "qwen2", "qwen3", "mistral")


def save_tiny_model(folder: Path, architecture: str, hidden: int = 16, scale: float = 4.0) -> Path:
    """A random two-layer model with a byte tokenizer; weights ``scale`` times the usual, so that nothing is linear."""
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
        Qwen3Config,
    )

    shared = {"vocab_size": VOCAB, "max_position_embeddings": WINDOW, "eos_token_id": EOD, "bos_token_id": EOD}
    sizes = {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 2 * hidden}
    configs = {
        "neox": lambda: GPTNeoXConfig(**sizes, **shared, rotary_pct=0.5),
        "llama": lambda: LlamaConfig(**sizes, **shared, num_key_value_heads=1),
        "qwen2": lambda: Qwen2Config(**sizes, **shared, num_key_value_heads=1, tie_word_embeddings=True),
        "qwen3": lambda: Qwen3Config(**sizes, **shared, num_key_value_heads=1, head_dim=hidden // 2),
        "mistral": lambda: MistralConfig(**sizes, **shared, num_key_value_heads=2, sliding_window=5),
        "gpt2": lambda: GPT2Config(
            vocab_size=VOCAB, n_positions=WINDOW, n_embd=hidden, n_layer=2, n_head=2, eos_token_id=EOD
        ),
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configs[architecture]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.dim() == 2:
                parameter.mul_(scale)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    build_tokenizer("CharLevelTokenizer", None).save_pretrained(folder)
    return folder


def write_queries(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, tmp_path):
    """One thread (the suite runs beside others), and no fingerprints in the developer's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory) -> dict[str, Path]:
    """architecture -> folder of a tiny model: NeoX has biases, Llama none but grouped keys, GPT-2 Conv1D, Qwen2 biases
    on some layers and tied embeddings, Qwen3 norms on queries and keys, Mistral a sliding window."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_tiny_model(root / name, name) for name in ARCHITECTURES}


def load_exact(folder: Path, pattern: str | None = None) -> ScoredModel:
    """The model in fp64 throughout: the stock RMS norms round to fp32, which would hide any error below 1e-7."""
    model = load_model(folder, dtype=torch.float64, device="cpu", pattern=pattern)
    exact_norms(model.model)
    return model


@pytest.fixture(params=["neox", "llama"])
def model(request, model_folders) -> ScoredModel:
    """A fresh fp64 model."""
    return load_exact(model_folders[request.param])


# some longer than the window, one empty, one of a single token
LENGTHS = [5, 40, 1, 16, 17, 0, 9, 3, 12, 31, 7, 2]


@pytest.fixture
def dataset(tmp_path) -> TokenDataset:
    return write_tokens(tmp_path / "d_text_document", random_documents(LENGTHS))


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, model_folders) -> Path:
    """EK-FAC factors of the NeoX model on the documents of `dataset`."""
    root = tmp_path_factory.mktemp("fitted")
    dataset = write_tokens(root / "d_text_document", random_documents(LENGTHS))
    fit_factors(model_folders["neox"], dataset.prefix, root / "factors", quiet=True)
    return root / "factors"


@pytest.fixture
def query_files(tmp_path) -> tuple[Path, Path]:
    toxic = [{"prompt": "you", "completion": " bad"}, {"prompt": "a", "completion": " vile one", "weight": 2.5}]
    safe = [{"prompt": "you", "completion": " dear"}, {"prompt": "hello", "completion": " all"}]
    return write_queries(tmp_path / "toxic.jsonl", toxic), write_queries(tmp_path / "safe.jsonl", safe)
