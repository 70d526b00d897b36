"""A sound dataset with a mask and scores, and the register of the ways to corrupt it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.data.aligned import write_aligned
from ifguide.data.fingerprint import make_fingerprint
from ifguide.data.index_file import HEADER, read_layout
from ifguide.data.indexed import TokenDataset, write_index
from ifguide.data.sidecar import file_states
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.system.files import hash_file, read_json, write_json

TOKENIZER = build_tokenizer("CharLevelTokenizer", None)
LENGTHS = (30, 1, 17, 64, 9, 40)
LENGTHS_AT = HEADER.size
POINTERS_AT = LENGTHS_AT + 4 * len(LENGTHS)
DOC_IDX_AT = POINTERS_AT + 8 * len(LENGTHS)
DOC_IDX = "no loader looks at doc_idx: each sequence is a document"


class Project:
    """`data`, `mask` and `scores` in a folder: prefixes of a token dataset and of what is aligned with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.data, self.mask, self.scores = (str(folder / name) for name in ("data", "mask", "scores"))

    @classmethod
    def create(cls, folder: Path, seed: int = 0) -> Project:
        folder.mkdir()
        project = cls(folder)
        generator = np.random.default_rng(seed)
        project.write_tokens(generator.integers(1, 256, sum(LENGTHS)))
        tokens = TokenDataset.open(project.data)
        codes = generator.integers(0, 2, tokens.num_tokens).astype(np.uint8)
        write_aligned(project.mask, tokens, codes, np.uint8, {"encoding": "binary"})
        values = generator.normal(size=tokens.num_tokens).astype(np.float32)
        write_aligned(project.scores, tokens, values, np.float32, {})
        return project

    def write_tokens(self, values: np.ndarray, dtype: type = np.int32) -> None:
        """The token dataset, as preprocess would leave it."""
        self.write(self.data, values, dtype)
        write_json(
            self.data + ".json",
            {
                "format_version": 1,
                "kind": "tokens",
                "tokenizer": {
                    "identity": TOKENIZER.vocabulary_fingerprint,
                    "vocab_size": TOKENIZER.vocab_size,
                    "eod": 0,
                },
            },
        )
        self.seal(self.data)

    def write(self, prefix: str, values: np.ndarray, dtype: type, lengths: tuple[int, ...] = LENGTHS) -> None:
        starts = np.concatenate([[0], np.cumsum(lengths)])
        values.astype(dtype).tofile(prefix + ".bin")
        write_index(prefix + ".idx", dtype, np.array(lengths), starts, np.arange(len(lengths) + 1))

    def seal(self, prefix: str) -> None:
        """Make the sidecars agree with the files as they are: what is wrong is then wrong in the files alone."""
        layout = read_layout(prefix, lambda fault: None)
        content_hash = hash_file(prefix + ".bin")
        found = make_fingerprint(layout.dtype, layout.lengths, layout.doc_idx, content_hash)
        self.edit(prefix, fingerprint=found, files=file_states(prefix + ".idx", prefix + ".bin"))
        if prefix == self.data:
            for aligned in (self.mask, self.scores):
                if Path(aligned + ".json").exists():
                    self.edit(aligned, data=found)

    def edit(self, prefix: str, **fields: object) -> None:
        """Change fields of a sidecar; None removes one."""
        sidecar = read_json(prefix + ".json") | fields
        write_json(prefix + ".json", {key: value for key, value in sidecar.items() if value is not None})


def patch(path: str, offset: int, form: str, *values: int) -> None:
    """Overwrite the file in place."""
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(struct.pack(form, *values))


def resize(path: str, change: int) -> None:
    os.truncate(path, os.path.getsize(path) + change)  # noqa: PTH202


def swap(*paths: str) -> None:
    contents = [Path(path).read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents)):
        Path(path).write_bytes(content)


Damage = Callable[[Project], object]


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        damage: does it.
        faults: names of the faults that `verify` must report: these and no others.
        says: part of the message of one of them.
        refused_by: ``training`` (the embedded engine, up to the last sample) or ``scores`` (what reads scores);
            else why no loader needs to refuse it.
        deep: only ``--deep`` sees it.
    """

    damage: Damage
    faults: str
    says: str
    refused_by: str = "training"
    deep: bool = False


ALL: dict[str, Corruption] = {}


def corruption(faults: str, says: str, **options: object) -> Callable[[Damage], Damage]:
    """Register a generator under its own name."""

    def register(damage: Damage) -> Damage:
        ALL[damage.__name__] = Corruption(damage, faults, says, **options)
        return damage

    return register


def copy_doc_idx(project: Project) -> None:
    """Give the mask and the scores the doc_idx of the data, so that they stay aligned."""
    entries = Path(project.data + ".idx").read_bytes()[DOC_IDX_AT:]
    for prefix in (project.mask, project.scores):
        with open(prefix + ".idx", "r+b") as stream:
            stream.seek(DOC_IDX_AT)
            stream.write(entries)
        project.seal(prefix)
