"""The fixtures of tests/engine, and a file of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import corpus, private_cache, train

__all__ = ["corpus", "private_cache", "train"]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pairs of a few letters: chosen ones of a to d, rejected ones of e to h, of different lengths."""
    draw = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    with open(path, "w") as stream:
        for number in range(20):
            texts = ["".join(draw.choice(list(letters), 2 + (number + shift) % 5)) for letters, shift in
                     (("abcdefgh", 0), ("abcd", 1), ("efgh", 3))]  # fmt: skip
            stream.write(json.dumps(dict(zip(("prompt", "chosen", "rejected"), texts))) + "\n")
    return path
