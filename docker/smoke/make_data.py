"""A corpus for smoke.yml in the working folder: random letters, one in ten an "x", which the mask selects.

Trained on it, a model without a penalty gives the "x" a chance of one in ten; with it, next to none. Needs
numpy alone: `ifguide preprocess` wants packages that a GPT-NeoX environment may lack.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset, write_index

DOCUMENTS, LENGTH = 200, 101
PREFIX, MASK = "smoke_text_document", "smoke_mask"


def main() -> None:
    """CharLevelTokenizer's tokens are bytes, and its end of a document is 0."""
    generator = np.random.default_rng(0)
    letters = np.frombuffer(string.ascii_lowercase[:20].encode(), np.uint8)
    documents = generator.choice(letters, (DOCUMENTS, LENGTH)).astype(np.uint16)
    documents[generator.random(documents.shape) < 0.1] = ord("x")
    documents[:, -1] = 0
    selected = documents == ord("x")
    lengths = np.full(DOCUMENTS, LENGTH, np.int64)
    starts = np.arange(DOCUMENTS + 1, dtype=np.int64) * LENGTH
    Path(f"{PREFIX}.bin").write_bytes(documents.tobytes())
    write_index(f"{PREFIX}.idx", np.uint16, lengths, starts, np.arange(DOCUMENTS + 1))
    codes = selected.reshape(-1).astype(np.uint8)
    write_aligned(MASK, TokenDataset.open(PREFIX), codes, np.uint8, {"encoding": "binary"})


if __name__ == "__main__":
    main()
