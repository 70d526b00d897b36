"""Reading and writing the memory-mapped indexed datasets of Megatron and GPT-NeoX with numpy alone.

A dataset is a pair ``P.idx`` + ``P.bin``. The index holds, little-endian and without padding:

    magic       9 bytes           b"MMIDIDX\\0\\0"
    version     uint64            1
    dtype code  uint8             see `_CODES`
    N_docs      uint64            number of sequences; a *document* is one sequence, everywhere
    N_doc_idx   uint64            number of entries of doc_idx
    lengths     int32[N_docs]     values per document
    pointers    int64[N_docs]     first byte of each document in P.bin
    doc_idx     int64[N_doc_idx]  boundaries of groups of sequences: carried along, never interpreted

Shapes: N_docs documents, N_tokens values in all.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ifguide.data.sidecar import TOKENS, read_sidecar
from ifguide.errors import InputError

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_CODES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
# GPT-NeoX means float32 by 6 and float64 by 7, megatron-core the reverse: only the size of P.bin can tell.
_FLOAT_CODES = (6, 7)
_WRITE_CODES = {"float32": 7, "float64": 6, **{name: code for code, name in _CODES.items()}}

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
    def open(cls: type[_Dataset], prefix: str | os.PathLike) -> _Dataset:
        """Open ``prefix.idx`` and ``prefix.bin`` and check that they are whole and belong together.

        Raises:
            InputError: a file is missing, empty, truncated, too long or not an mmap index; names the
                file and the fault.
        """
        prefix = os.fspath(prefix)
        index_path, bin_path = Path(prefix + ".idx"), Path(prefix + ".bin")
        index_size, bin_size = _size_of(index_path, prefix), _size_of(bin_path, prefix)
        code, lengths, pointers, doc_idx = _read_index(index_path, index_size)
        starts = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        num_values = int(starts[-1])
        if num_values == 0:
            raise InputError(f"{index_path} lists no tokens; write the dataset again")
        dtype = _dtype_of(code, bin_size, num_values, index_path)
        _check_bin(bin_path, bin_size, num_values * dtype.itemsize)
        broken = np.flatnonzero(pointers != starts[:-1] * dtype.itemsize)
        if broken.size:
            raise InputError(
                f"{index_path} is damaged: document {broken[0]} starts at byte {pointers[broken[0]]}, expected "
                f"{starts[broken[0]] * dtype.itemsize} (documents must follow each other without gaps)"
            )
        values = np.memmap(bin_path, dtype=dtype, mode="r", shape=(num_values,))
        return cls(prefix, dtype, lengths.astype(np.int64), starts, doc_idx, values)

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
    def open(cls, prefix: str | os.PathLike) -> TokenDataset:
        """As `IndexedDataset.open`.

        Raises:
            InputError: also where the values are no token ids.
        """
        dataset = super().open(prefix)
        kind = read_sidecar(dataset.prefix).get("kind", TOKENS)
        if kind != TOKENS:
            raise InputError(f"{dataset.prefix} holds {kind}, not tokens (so says its sidecar)")
        if dataset.dtype.kind not in "iu":
            raise InputError(f"{dataset.prefix} holds {dataset.dtype} values, not tokens; is it a score file?")
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
    header = _HEADER.pack(_MAGIC, _VERSION, _WRITE_CODES[dtype.name], len(lengths), len(doc_idx))
    with open(path, "wb") as stream:
        stream.write(header)
        stream.write(np.ascontiguousarray(lengths, dtype="<i4").data)
        stream.write((starts[:-1] * dtype.itemsize).astype("<i8").data)
        stream.write(np.ascontiguousarray(doc_idx, dtype="<i8").data)


def _read_index(path: Path, size: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(dtype code, lengths, pointers, doc_idx) of the index at ``path``, ``size`` bytes long."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEADER.size)
            if not head.startswith(_MAGIC):
                kind = "a legacy index (cached or lazy)" if head.startswith(b"TNTIDX") else "not an mmap index"
                raise InputError(f"{path} is {kind}: magic {head[:9]!r}; write the dataset with --dataset-impl mmap")
            if len(head) < _HEADER.size:
                raise InputError(f"{path} is truncated: {size} bytes, the header alone has {_HEADER.size}")
            _, version, code, num_documents, num_doc_idx = _HEADER.unpack(head)
            if version != _VERSION:
                raise InputError(f"{path} has index version {version}; only version {_VERSION} can be read")
            expected = _HEADER.size + 12 * num_documents + 8 * num_doc_idx
            if size != expected:
                fault = "is truncated" if size < expected else "has trailing bytes (multimodal datasets are not read)"
                raise InputError(f"{path} {fault}: {size} bytes, {expected} expected for its {num_documents} documents")
            lengths = np.fromfile(stream, dtype="<i4", count=num_documents)
            pointers = np.fromfile(stream, dtype="<i8", count=num_documents)
            doc_idx = np.fromfile(stream, dtype="<i8", count=num_doc_idx)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if num_documents and lengths.min() < 0:
        raise InputError(f"{path} is damaged: document {int(lengths.argmin())} has length {lengths.min()}")
    return code, lengths, pointers, doc_idx


def _dtype_of(code: int, bin_size: int, num_values: int, index_path: Path) -> np.dtype:
    if code in _CODES:
        return np.dtype(_CODES[code])
    if code in _FLOAT_CODES:
        return np.dtype(np.float64 if bin_size == 8 * num_values else np.float32)
    raise InputError(f"{index_path} has the unknown dtype code {code}")


def _check_bin(path: Path, size: int, expected: int) -> None:
    if size < expected:
        raise InputError(f"{path} is truncated: {size} bytes, its index needs {expected}; copy or write it again")
    if size > expected:
        raise InputError(f"{path} has {size} bytes, its index says {expected}; the two belong to different datasets")


def _size_of(path: Path, prefix: str) -> int:
    """Bytes of one of the two files; the message for a missing one says what the prefix may have been."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {_hint(prefix)}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if size == 0:
        raise InputError(f"{path} is empty (0 bytes): the job that wrote it did not finish; write it again")
    return size


def _hint(prefix: str) -> str:
    candidates = [prefix + "_text_document"]
    if prefix.endswith((".idx", ".bin")):
        candidates.append(prefix[:-4])
    for candidate in candidates:
        if Path(candidate + ".idx").exists():
            return f"did you mean the prefix {candidate}?"
    return "a dataset is named by its prefix, the path without .idx and .bin"
