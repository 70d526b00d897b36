"""Datasets written byte by byte, so that the reader is not tested against our own writer, and tiny vocabularies."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Schöne Grüße, 世界 and 😀!",
    "it's   spaced\tand\nbroken",
    "a",
    "don't stop: 1234567890",
]


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the cache of the person who runs it."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


def _write_raw(
    prefix: Path, documents: Sequence[Sequence], dtype: type, code: int, doc_idx: Sequence[int] | None = None
) -> str:
    """The literal format: one struct.pack per number."""
    size = np.dtype(dtype).itemsize
    doc_idx = range(len(documents) + 1) if doc_idx is None else doc_idx
    index = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", code)
    index += struct.pack("<Q", len(documents)) + struct.pack("<Q", len(doc_idx))
    for document in documents:
        index += struct.pack("<i", len(document))
    offset = 0
    for document in documents:
        index += struct.pack("<q", offset)
        offset += len(document) * size
    for entry in doc_idx:
        index += struct.pack("<q", entry)
    Path(f"{prefix}.idx").write_bytes(index)
    Path(f"{prefix}.bin").write_bytes(b"".join(np.array(document, dtype).tobytes() for document in documents))
    return str(prefix)


@pytest.fixture(scope="session")
def write_raw() -> Callable[..., str]:
    return _write_raw


@pytest.fixture
def documents() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 60000, size).tolist() for size in (5, 1, 0, 17, 3, 64)]


@pytest.fixture
def tokens_prefix(tmp_path: Path, documents: list[list[int]]) -> str:
    return _write_raw(tmp_path / "corpus_text_document", documents, np.uint16, 8)


@pytest.fixture(scope="session")
def megatron():
    """megatron-core's own module, imported once (it takes seconds)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets import indexed_dataset
    return indexed_dataset


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Files of tiny trained vocabularies, by name: hf.json, vocab.json + merges.txt, spm.model, plain.model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("vocabulary")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 20, trainer)
    backend.save(str(folder / "hf.json"))
    model = json.loads(backend.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return lambda name: folder / name


@pytest.fixture(scope="session")
def sentencepiece_models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """SentencePiece models with (True) and without (False) an end-of-document piece."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("sentencepiece")
    paths = {}
    for with_eod in (True, False):
        prefix = folder / f"model{with_eod}"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 20),
            model_prefix=str(prefix),
            vocab_size=120,
            hard_vocab_limit=False,
            user_defined_symbols=["<|endoftext|>"] if with_eod else [],
            minloglevel=2,
        )
        paths[with_eod] = prefix.with_suffix(".model")
    return paths
