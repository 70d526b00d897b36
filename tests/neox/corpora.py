"""Tiny corpora with masks and labels, written with the product's own writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset, write_index

EOD = 0
LETTERS = 100  # token ids 1..99


def write_documents(prefix: Path, documents: Sequence[np.ndarray], dtype: type = np.uint16) -> None:
    """An indexed dataset of ``documents``."""
    lengths = np.array([len(document) for document in documents], np.int64)
    values = np.concatenate(documents).astype(dtype)
    Path(f"{prefix}.bin").write_bytes(values.tobytes())
    starts = np.concatenate([[0], np.cumsum(lengths)])
    write_index(f"{prefix}.idx", dtype, lengths, starts, np.arange(len(lengths) + 1))


def write_corpus(folder: Path, name: str, documents: int = 150, seed: int = 0) -> Path:
    """Random documents of 5 to 59 letters with their masks and labels beside them.

    ``NAME``; ``NAME-binary``, ``NAME-graded`` and ``NAME-empty`` masks; ``NAME-labels``: the tokens, -100 for
    the first third of every document.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.integers(5, 60, documents)
    texts = [np.append(generator.integers(1, LETTERS, length - 1), EOD) for length in lengths]
    write_documents(folder / name, texts)
    tokens = TokenDataset.open(folder / name)
    chosen = generator.random(tokens.num_tokens) < 0.15
    write_mask(folder / f"{name}-binary", tokens, chosen.astype(np.uint8), "binary")
    grades = np.where(chosen, generator.integers(1, 256, tokens.num_tokens), 0).astype(np.uint8)
    write_mask(folder / f"{name}-graded", tokens, grades, "graded")
    write_mask(folder / f"{name}-empty", tokens, np.zeros(tokens.num_tokens, np.uint8), "binary")
    labels = [text.astype(np.int64) for text in texts]
    for label in labels:
        label[: len(label) // 3] = -100
    write_documents(folder / f"{name}-labels", labels, np.int32)
    return folder / name


def write_mask(prefix: Path, tokens: TokenDataset, codes: np.ndarray, encoding: str) -> None:
    write_aligned(prefix, tokens, codes, np.uint8, {"encoding": encoding})


def write_alternating(folder: Path, documents: int = 200, seed: int = 0) -> Path:
    """Random letter, fixed letter, random, fixed: no letter tells which random one comes next.

    ``alternating``; ``alternating-fixed``: the mask on the fixed letter; ``alternating-shifted``: the same
    mask one token late, on the random letters.
    """
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(documents):
        text = np.full(64, FIXED)
        text[::2] = generator.integers(1, 9, 32)
        texts.append(np.append(text, EOD))
    write_documents(folder / "alternating", texts)
    tokens = TokenDataset.open(folder / "alternating")
    fixed = np.asarray(tokens.tokens) == FIXED
    write_mask(folder / "alternating-fixed", tokens, fixed.astype(np.uint8), "binary")
    write_mask(folder / "alternating-shifted", tokens, np.roll(fixed, 1).astype(np.uint8), "binary")
    return folder / "alternating"


FIXED = 50
