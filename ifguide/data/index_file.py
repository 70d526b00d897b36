"""The two files of an indexed dataset, read as files that may be damaged or hostile.

The index of a dataset ``P.idx`` + ``P.bin`` holds, little-endian and without padding:

    magic       9 bytes           b"MMIDIDX\\0\\0"
    version     uint64            1
    dtype code  uint8             see `CODES`
    N_docs      uint64            number of sequences; a *document* is one sequence, everywhere
    N_doc_idx   uint64            number of entries of doc_idx
    lengths     int32[N_docs]     values per document
    pointers    int64[N_docs]     first byte of each document in P.bin
    doc_idx     int64[N_doc_idx]  boundaries of groups of sequences: carried along, never interpreted

The rules stand here once: `read_layout` tells its caller of every fault that it meets. A loader raises the first,
``ifguide verify`` lists them all. No count is believed, and nothing allocated by it, before it agrees
with the size of the file.

Shapes: N_docs documents, N_tokens values in all.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ifguide.config.hints import prefix_hint

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
CODES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
# GPT-NeoX means float32 by 6 and float64 by 7, megatron-core the reverse: only the size of P.bin can tell.
FLOAT_CODES = (6, 7)

_SHOWN = 3  # offenders that a message names
_CHUNK = 1 << 16  # pointers looked at at once: what is computed of them stays in the cache


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a file.

    Attributes:
        name: what it is, for machines: stable, as in ``negative-length``.
        message: what it is, for people: one complete sentence that names the file.
        count: how many places have it.
    """

    name: str
    message: str
    count: int = 1


Report = Callable[[Fault], None]


@dataclass(frozen=True, eq=False)
class Layout:
    """What the index says, as far as it could be read.

    Attributes:
        dtype: of the values; None if the index does not say.
        lengths: int64[N_docs], values per document.
        starts: int64[N_docs + 1], offset of each document's first value; the last entry is N_tokens.
        doc_idx: int64[N_doc_idx], as stored.
    """

    dtype: np.dtype | None
    lengths: np.ndarray
    starts: np.ndarray
    doc_idx: np.ndarray


class Starts:
    """The offset of each document's first value, computed from the pointers on disk wherever it is asked for.

    Takes the place of ``starts``[N_docs + 1] of a layout that is mapped: it is indexed like an array, by numbers,
    slices and arrays of numbers, and becomes one where a whole array is needed.
    """

    def __init__(self, pointers: np.ndarray, itemsize: int, end: int):
        self._pointers, self._itemsize, self._end = pointers, itemsize, end

    def __len__(self) -> int:
        return len(self._pointers) + 1

    def __getitem__(self, key: Any) -> Any:
        last = len(self._pointers)
        if isinstance(key, int | np.integer):
            place = range(last + 1)[int(key)]
            return self._end if place == last else int(self._pointers[place]) // self._itemsize
        if isinstance(key, slice):
            first, stop, step = key.indices(last + 1)
            if step == 1 and stop <= last:
                return self._pointers[first:stop] // self._itemsize
            key = np.arange(first, stop, step)
        places = np.asarray(key)
        if places.dtype == np.bool_:
            places = np.flatnonzero(places)
        places = np.where(places < 0, places + last + 1, places)
        return np.where(places == last, self._end, self._pointers[np.minimum(places, last - 1)] // self._itemsize)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.append(self._pointers // self._itemsize, np.int64(self._end)).astype(dtype or np.int64, copy=False)


def read_layout(prefix: str, report: Report, mapped: bool = False) -> Layout | None:
    """Read the index of ``prefix`` and compare it with the size of its .bin, telling ``report`` of each fault.

    Args:
        mapped: leave lengths (then int32), starts (`Starts`) and doc_idx on disk: a process that looks at parts of a
            large dataset needs no memory for the others.

    Returns:
        None if there is no index that could be read. A layout belongs to sound files only if nothing was reported.
    """
    index_path, bin_path = Path(prefix + ".idx"), Path(prefix + ".bin")
    index_size = _size_of(index_path, prefix, report)
    bin_size = _size_of(bin_path, prefix, report)
    if not index_size:
        return None
    try:
        with open(index_path, "rb") as stream:
            return _read(stream, index_path, bin_path, bin_size, report, mapped)
    except OSError as error:
        report(Fault("unreadable", f"{index_path} cannot be read: {error.strerror}"))
        return None


def offenders(texts: Sequence[str], count: int) -> str:
    """The first few of ``count`` places: ``a, b, c and 7 more``."""
    shown = ", ".join(texts[:_SHOWN])
    rest = count - min(len(texts), _SHOWN)
    return f"{shown} and {rest} more" if rest > 0 else shown


def _read(
    stream: BinaryIO, path: Path, bin_path: Path, bin_size: int | None, report: Report, mapped: bool
) -> Layout | None:
    header = _read_header(stream, path, report)
    if header is None:
        return None
    code, num_documents, num_doc_idx = header
    if code not in CODES and code not in FLOAT_CODES:
        report(Fault("dtype-code", f"{path} has the unknown dtype code {code}"))
    if mapped and num_documents and num_doc_idx:
        return _map(path, header, bin_path, bin_size, report)

    stored = _read_array(stream, "<i4", num_documents)
    negative = np.flatnonzero(stored < 0)
    if negative.size:
        places = [f"document {i} has length {stored[i]}" for i in negative[:_SHOWN]]
        report(Fault("negative-length", f"{path} is damaged: {offenders(places, negative.size)}", count=negative.size))
    lengths = stored.astype(np.int64)
    del stored
    starts = np.zeros(num_documents + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    num_values = int(starts[-1])
    dtype = _dtype_of(code, bin_size, num_values)

    if not negative.size:
        if num_values == 0:
            report(Fault("no-tokens", f"{path} lists no tokens; write the dataset again"))
        elif dtype is not None:
            _check_bin(bin_path, bin_size, num_values * dtype.itemsize, report)
            _check_pointers(stream, path, starts, dtype, report)
    stream.seek(HEADER.size + 12 * num_documents)
    return Layout(dtype, lengths, starts, _read_array(stream, "<i8", num_doc_idx))


def _map(
    path: Path, header: tuple[int, int, int], bin_path: Path, bin_size: int | None, report: Report
) -> Layout | None:
    """`_read` with all arrays left on disk; they are looked at in pieces."""
    code, num_documents, num_doc_idx = header
    places = {"<i4": HEADER.size, "<i8": HEADER.size + 4 * num_documents}
    lengths, pointers = (
        np.asarray(np.memmap(path, kind, "r", place, (num_documents,))) for kind, place in places.items()
    )
    doc_idx = np.asarray(np.memmap(path, "<i8", "r", HEADER.size + 12 * num_documents, (num_doc_idx,)))
    # how wide a float is, only their number tells
    dtype = _dtype_of(code, bin_size, 0 if code in CODES else int(lengths.sum(dtype=np.int64)))
    if dtype is None:
        return None
    end = 0
    for begin in range(0, num_documents, _CHUNK):
        chunk = lengths[begin : begin + _CHUNK]
        if chunk.min() < 0:
            first = begin + int(np.flatnonzero(chunk < 0)[0])
            report(Fault("negative-length", f"{path} is damaged: document {first} has length {lengths[first]}"))
            return None
        sums = np.cumsum(chunk, dtype=np.int64)
        expected = (sums - chunk + end) * dtype.itemsize
        found = pointers[begin : begin + _CHUNK]
        if not np.array_equal(found, expected):
            i = int(np.flatnonzero(found != expected)[0])
            where = f"document {begin + i} starts at byte {found[i]}, expected {expected[i]}"
            text = f"{path} is damaged: {where} (documents must follow each other without gaps)"
            report(Fault("pointers", text, int((found != expected).sum())))
            return None
        end += int(sums[-1])
    if end == 0:
        report(Fault("no-tokens", f"{path} lists no tokens; write the dataset again"))
    _check_bin(bin_path, bin_size, end * dtype.itemsize, report)
    return Layout(dtype, lengths, cast(np.ndarray, Starts(pointers, dtype.itemsize, end)), doc_idx)


def _read_header(stream: BinaryIO, path: Path, report: Report) -> tuple[int, int, int] | None:
    """(dtype code, N_docs, N_doc_idx), or None where no index of that shape follows the header."""
    size = os.fstat(stream.fileno()).st_size
    head = stream.read(HEADER.size)
    if not head.startswith(MAGIC):
        kind = "a legacy index (cached or lazy)" if head.startswith(b"TNTIDX") else "not an mmap index"
        report(Fault("magic", f"{path} is {kind}: magic {head[:9]!r}; write the dataset with --dataset-impl mmap"))
        return None
    if len(head) < HEADER.size:
        report(
            Fault("index-size", f"{path} is truncated: {size} bytes, the header alone has {HEADER.size}; copy it again")
        )
        return None
    _, version, code, num_documents, num_doc_idx = HEADER.unpack(head)
    if version != VERSION:
        report(Fault("version", f"{path} has index version {version}; only version {VERSION} can be read"))
    expected = HEADER.size + 12 * num_documents + 8 * num_doc_idx
    if size == expected:
        return code, num_documents, num_doc_idx
    if size == expected + num_documents:
        text = f"{path} has a mode for each document: a multimodal dataset, which is not read; it must be text alone"
        report(Fault("multimodal", text))
        return code, num_documents, num_doc_idx
    state = "is truncated" if size < expected else "has trailing bytes"
    wanted = f"{size} bytes, {expected} expected for its {num_documents} documents"
    report(Fault("index-size", f"{path} {state}: {wanted}; copy or write it again"))
    return None


def _read_array(stream: BinaryIO, dtype: str, count: int) -> np.ndarray:
    array = np.fromfile(stream, dtype=dtype, count=count)
    if len(array) < count:
        raise OSError(0, "it became shorter while it was read")
    return array


def _check_bin(path: Path, size: int | None, expected: int, report: Report) -> None:
    if not size or size == expected:
        return
    if size < expected:
        text = f"{path} is truncated: {size} bytes, its index needs {expected}; copy or write it again"
    else:
        text = f"{path} has {size} bytes, its index says {expected}; the two belong to different datasets"
    report(Fault("bin-size", text))


def _check_pointers(stream: BinaryIO, path: Path, starts: np.ndarray, dtype: np.dtype, report: Report) -> None:
    """Documents follow each other without gaps: readers that trust the pointers and those that trust the
    lengths must see the same tokens."""
    count = 0
    places: list[str] = []
    for begin in range(0, len(starts) - 1, _CHUNK):
        expected = starts[begin : min(begin + _CHUNK, len(starts) - 1)] * dtype.itemsize
        pointers = _read_array(stream, "<i8", len(expected))
        broken = np.flatnonzero(pointers != expected)
        count += broken.size
        for i in broken[: _SHOWN - len(places)]:
            places.append(f"document {begin + i} starts at byte {pointers[i]}, expected {expected[i]}")
    if count:
        text = f"{path} is damaged: {offenders(places, count)} (documents must follow each other without gaps)"
        report(Fault("pointers", text, count))


def _dtype_of(code: int, bin_size: int | None, num_values: int) -> np.dtype | None:
    if code in FLOAT_CODES:
        return np.dtype(np.float64 if bin_size == 8 * num_values else np.float32)
    return np.dtype(CODES[code]) if code in CODES else None


def _size_of(path: Path, prefix: str, report: Report) -> int | None:
    """Bytes of one of the two files, None where it is of no use; a missing one is answered with what the
    prefix may have been."""
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            report(Fault("missing", f"{path} is a link to nothing; mend it"))
        else:
            report(Fault("missing", f"{path} does not exist; {prefix_hint(prefix)}"))
        return None
    except (OSError, ValueError) as error:
        report(Fault("unreadable", f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"))
        return None
    if not stat.S_ISREG(status.st_mode):
        report(Fault("not-a-file", f"{path} is not a file"))
        return None
    if status.st_size == 0:
        report(
            Fault("empty", f"{path} is empty (0 bytes): the job that wrote it did not finish; write it again")
        )  # fmt: skip
        return None
    return status.st_size
