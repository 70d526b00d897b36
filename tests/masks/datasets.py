"""Small token and score datasets for the tests of masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset, write_index

EOD = 0


def write_tokens(
    prefix: Path, documents: list[list[int]], dtype: type = np.uint16, doc_idx: list[int] | None = None, **sidecar
) -> TokenDataset:
    """A token dataset; ``sidecar`` fields make it one that preprocess could have written."""
    lengths = np.array([len(document) for document in documents])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.concatenate([np.array(document, dtype) for document in documents]).tofile(f"{prefix}.bin")
    write_index(f"{prefix}.idx", dtype, lengths, starts, np.arange(len(lengths) + 1) if doc_idx is None else doc_idx)
    if sidecar:
        Path(f"{prefix}.json").write_text(json.dumps({"format_version": 1, "kind": "tokens", **sidecar}))
    return TokenDataset.open(prefix)


def random_documents(seed: int, count: int = 40, longest: int = 60, vocab: int = 50) -> list[list[int]]:
    """Documents of 1 .. ``longest`` tokens that end with `EOD`."""
    generator = np.random.default_rng(seed)
    return [
        [*generator.integers(1, vocab, size - 1).tolist(), EOD] for size in generator.integers(1, longest + 1, count)
    ]


def write_scores(prefix: Path, tokens: TokenDataset, seed: int, **sidecar) -> np.ndarray:
    scores = np.random.default_rng(seed).standard_t(3, tokens.num_tokens).astype(np.float32)
    write_aligned(prefix, tokens, scores, np.float32, sidecar)
    return scores


def files(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too: a leftover temporary shows."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
