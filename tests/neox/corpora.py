"""Tiny corpora with masks and labels, written with the product's own writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.datasets import write_indexed, write_mask, write_tokens

EOD = 0
LETTERS = 100  # token ids 1..99


def write_corpus(folder: Path, name: str, documents: int = 150, seed: int = 0) -> Path:
    """Random documents of 5 to 59 letters with their masks and labels beside them.

    ``NAME``; ``NAME-binary``, ``NAME-graded`` and ``NAME-empty`` masks; ``NAME-labels``: the tokens, -100 for
    the first third of every document.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.integers(5, 60, documents)
    texts = [np.append(generator.integers(1, LETTERS, length - 1), EOD) for length in lengths]
    tokens = write_tokens(folder / name, texts)
    chosen = generator.random(tokens.num_tokens) < 0.15
    write_mask(folder / f"{name}-binary", tokens, chosen.astype(np.uint8), "binary")
    grades = np.where(chosen, generator.integers(1, 256, tokens.num_tokens), 0).astype(np.uint8)
    write_mask(folder / f"{name}-graded", tokens, grades, "graded")
    write_mask(folder / f"{name}-empty", tokens, np.zeros(tokens.num_tokens, np.uint8), "binary")
    labels = [text.astype(np.int64) for text in texts]
    for label in labels:
        label[: len(label) // 3] = -100
    write_indexed(folder / f"{name}-labels", labels, np.int32)
    return folder / name


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
    tokens = write_tokens(folder / "alternating", texts)
    fixed = np.asarray(tokens.tokens) == FIXED
    write_mask(folder / "alternating-fixed", tokens, fixed.astype(np.uint8), "binary")
    write_mask(folder / "alternating-shifted", tokens, np.roll(fixed, 1).astype(np.uint8), "binary")
    return folder / "alternating"


FIXED = 50
