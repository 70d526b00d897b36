"""Random documents and scores for the tests of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset

EOD = 0


def ended_documents(seed: int, count: int = 40, longest: int = 60, vocab: int = 50) -> list[list[int]]:
    """Documents of 1 .. ``longest`` tokens that end with `EOD`."""
    generator = np.random.default_rng(seed)
    return [
        [*generator.integers(1, vocab, size - 1).tolist(), EOD] for size in generator.integers(1, longest + 1, count)
    ]


def write_scores(prefix: Path, tokens: TokenDataset, seed: int, **sidecar) -> np.ndarray:
    scores = np.random.default_rng(seed).standard_t(3, tokens.num_tokens).astype(np.float32)
    write_aligned(prefix, tokens, scores, np.float32, sidecar)
    return scores
