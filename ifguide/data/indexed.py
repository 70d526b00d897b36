"""Reading and writing the memory-mapped indexed datasets of Megatron and GPT-NeoX with numpy alone.

A dataset is a pair ``P.idx`` + ``P.bin``; `ifguide.data.index_file` says what is in them.

Shapes: N_docs documents, N_tokens values in all.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np

from ifguide.data.index_file import CODES, HEADER, MAGIC, VERSION, Fault, Layout, read_layout
from ifguide.data.sidecar import TOKENS, read_sidecar
from ifguide.errors import IFGuideWarning, InputError

_WRITE_CODES = {"float32": 7, "float64": 6, **{name: code for code, name in CODES.items()}}

_CHUNK = 1 << 20  # entries of an index that are converted at once

_Dataset = TypeVar("_Dataset", bound="IndexedDataset")


@dataclass(frozen=True, eq=False)
class IndexedDataset:
    """One indexed dataset, opened read-only; the values stay on disk until they are touched.

    Attributes:
        prefix: the path without ``.idx`` and ``.bin``.
        dtype: of the values.
        lengths: int64[N_docs], values per document.
        starts: int64[N_docs + 1], offset of each document's first value; the last entry is N_tokens.
        doc_idx: int64[N_doc_idx], as stored (merged datasets carry a degenerate one).
        values: memmap[N_tokens], all documents one after the other.
    """

    prefix: str
    dtype: np.dtype
    lengths: np.ndarray
    starts: np.ndarray
    doc_idx: np.ndarray
    values: np.ndarray

    @classmethod
    def open(cls: type[_Dataset], prefix: str | os.PathLike, mapped: bool = False) -> _Dataset:
        """Open ``prefix.idx`` and ``prefix.bin`` and check that they are whole and belong together.

        Args:
            mapped: the index stays on disk, as the values do: ``lengths`` are int32, ``starts`` a `Starts`.

        Raises:
            InputError: a file is missing, empty, truncated, too long or not an mmap index; names the
                file and the fault.
        """
        prefix = os.fspath(prefix)
        layout = read_layout(prefix, _refuse, mapped)
        assert layout is not None
        return cls.of_layout(prefix, layout)

    @classmethod
    def of_layout(cls: type[_Dataset], prefix: str, layout: Layout) -> _Dataset:
        """The dataset of a layout in which `read_layout` found no fault.

        Raises:
            InputError: the .bin cannot be read.
        """
        assert layout.dtype is not None
        try:
            values = np.memmap(prefix + ".bin", dtype=layout.dtype, mode="r", shape=(int(layout.starts[-1]),))
        except (OSError, ValueError) as error:  # ValueError: it became shorter meanwhile
            raise InputError(f"{prefix}.bin cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return cls(prefix, layout.dtype, layout.lengths, layout.starts, layout.doc_idx, values)

    @property
    def index_path(self) -> Path:
        return Path(self.prefix + ".idx")

    @property
    def bin_path(self) -> Path:
        return Path(self.prefix + ".bin")

    @property
    def num_documents(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        return int(self.starts[-1])

    def document(self, i: int) -> np.ndarray:
        """Values of document ``i``: a view [lengths[i]] of the file."""
        if not 0 <= i < self.num_documents:
            raise IndexError(f"document {i} of {self.num_documents}")
        return self.values[self.starts[i] : self.starts[i + 1]]


class TokenDataset(IndexedDataset):
    """An indexed dataset whose values are token ids."""

    @classmethod
    def open(cls, prefix: str | os.PathLike, mapped: bool = False) -> TokenDataset:
        """As `IndexedDataset.open`; warns where ``doc_idx`` groups sequences, because nothing here does.

        Raises:
            InputError: also where the values are no token ids.
        """
        dataset = super().open(prefix, mapped)
        kind = read_sidecar(dataset.prefix).get("kind", TOKENS)
        if kind != TOKENS:
            raise InputError(f"{dataset.prefix} holds {kind}, not tokens (so says its sidecar)")
        if dataset.dtype.kind not in "iu":
            raise InputError(f"{dataset.prefix} holds {dataset.dtype} values, not tokens; is it a score file?")
        groups = len(dataset.doc_idx) - 1
        if groups < dataset.num_documents:
            warnings.warn(
                f"{dataset.index_path}: doc_idx makes {max(groups, 0)} groups of {dataset.num_documents} sequences (a "
                "merge leaves such); it is not used: each sequence is a document",
                IFGuideWarning,
                stacklevel=2,
            )
        return dataset

    @property
    def tokens(self) -> np.ndarray:
        """memmap[N_tokens] of token ids, all documents one after the other."""
        return self.values


def write_index(
    path: str | os.PathLike, dtype: np.dtype | type, lengths: np.ndarray, starts: np.ndarray, doc_idx: np.ndarray
) -> None:
    """Write the index of a dataset of ``dtype`` with these ``lengths``[N_docs], ``starts``[N_docs + 1]
    (in values, not bytes) and ``doc_idx``; floats get megatron-core's code."""
    dtype = np.dtype(dtype)
    header = HEADER.pack(MAGIC, VERSION, _WRITE_CODES[dtype.name], len(lengths), len(doc_idx))
    with open(path, "wb") as stream:
        stream.write(header)
        for begin in range(0, len(lengths), _CHUNK):
            stream.write(np.ascontiguousarray(lengths[begin : begin + _CHUNK], dtype="<i4").data)
        for begin in range(0, len(lengths), _CHUNK):
            stop = min(begin + _CHUNK, len(lengths))
            stream.write((starts[begin:stop] * dtype.itemsize).astype("<i8").data)
        for begin in range(0, len(doc_idx), _CHUNK):
            stream.write(np.ascontiguousarray(doc_idx[begin : begin + _CHUNK], dtype="<i8").data)


def _refuse(fault: Fault) -> NoReturn:
    raise InputError(fault.message)
