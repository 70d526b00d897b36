"""Small token datasets and masks, written with the product's own writers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset, write_index


def write_indexed(
    prefix: str | Path, documents: Sequence[ArrayLike], dtype: DTypeLike = np.uint16, doc_idx: ArrayLike | None = None
) -> None:
    """``prefix``.bin and ``prefix``.idx of these documents; each is a document in ``doc_idx`` too, if none is given."""
    lengths = np.array([len(document) for document in documents], np.int64)  # type: ignore[arg-type]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    np.concatenate([np.asarray(document).astype(dtype) for document in documents]).tofile(f"{prefix}.bin")
    write_index(
        f"{prefix}.idx", dtype, lengths, starts, np.arange(len(lengths) + 1) if doc_idx is None else np.array(doc_idx)
    )


def write_tokens(
    prefix: str | Path,
    documents: Sequence[ArrayLike],
    dtype: DTypeLike = np.uint16,
    doc_idx: ArrayLike | None = None,
    **sidecar: object,
) -> TokenDataset:
    """A token dataset; ``sidecar`` fields make it one that preprocess could have written."""
    write_indexed(prefix, documents, dtype, doc_idx)
    if sidecar:
        Path(f"{prefix}.json").write_text(json.dumps({"format_version": 1, "kind": "tokens", **sidecar}))
    return TokenDataset.open(prefix)


def write_mask(prefix: str | Path, tokens: TokenDataset, codes: np.ndarray, encoding: str = "binary") -> None:
    """The mask of ``codes``, one a token, with its sidecar."""
    write_aligned(prefix, tokens, codes.astype(np.uint8), np.uint8, {"encoding": encoding})


def random_documents(lengths: Sequence[int], seed: int = 0, vocab: int = 256) -> list[np.ndarray]:
    """A document of each length, of the ids 1 to ``vocab`` - 1."""
    generator = np.random.default_rng(seed)
    return [generator.integers(1, vocab, length) for length in lengths]
