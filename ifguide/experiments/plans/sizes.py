"""How much there is to do, from what a plan says alone: bytes of text, tokens, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifguide.experiments.plans.plan import Corpus

_BYTES_A_TOKEN = 4.2  # English text in a vocabulary of some thousand
_QUICKSTART_BYTES, _QUICKSTART_SMALL_BYTES = 2_700_000, 150_000
_VOCABULARY = 4096


def file_bytes(corpus: Corpus) -> float:
    """Of the training text."""
    path = corpus.files.get("text")
    if path is None or not path.is_file():
        return _QUICKSTART_SMALL_BYTES if corpus.small else _QUICKSTART_BYTES
    return path.stat().st_size


def tokens_in(corpus: Corpus) -> float:
    """A guess at the training tokens."""
    return file_bytes(corpus) / _BYTES_A_TOKEN


def parameters(keys: Mapping[str, Any]) -> float:
    """Of a model with these training keys, about: 12 L d² + 2 V d."""
    layers, width = float(keys.get("num_layers") or 2), float(keys.get("hidden_size") or 128)
    return 12 * layers * width**2 + 2 * _VOCABULARY * width


def trained_tokens(keys: Mapping[str, Any], corpus_tokens: float) -> float:
    """That a training with these keys reads."""
    if keys.get("train_iters"):
        batch = keys.get("train_batch_size") or keys.get("train_micro_batch_size_per_gpu") or 1
        return float(keys["train_iters"]) * float(batch) * float(keys.get("seq_length") or 1)
    return float(keys.get("train_epochs") or 1) * corpus_tokens
