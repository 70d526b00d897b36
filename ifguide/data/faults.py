"""What can be wrong inside an indexed dataset whose two files are whole: its values, its doc_idx, what lies beside it.

Shapes: N_docs documents, N_tokens values in all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ifguide.data.index_file import Fault, Layout, Report, offenders

_CHUNK_BYTES = 1 << 20  # stays in a core's cache between the passes over it
_SHOWN = 3


@dataclass
class Outside:
    """The values of a dataset that are not in the allowed range.

    Attributes:
        count: how many.
        nan: how many of them are NaN.
        first: (position in the dataset, value) of the first few.
        highest: the highest value of all, inside or outside; None where there is none or a NaN.
    """

    count: int = 0
    nan: int = 0
    first: list[tuple[int, float]] = field(default_factory=list)
    highest: float | None = None

    def places(self, starts: np.ndarray) -> str:
        """The first few as ``600 at document 0, token 3``."""
        texts = []
        for position, value in self.first:
            document = int(np.searchsorted(starts, position, side="right")) - 1
            texts.append(f"{value} at document {document}, token {position - int(starts[document])}")
        return offenders(texts, self.count)


def chunks(path: str | os.PathLike, dtype: np.dtype, on_bytes: Callable[[int], object]) -> Iterator[np.ndarray]:
    """All values of the file in order, in pieces. A piece is valid until the next one is asked for.

    The file is read, not mapped: memory stays bounded, and a file that is cut meanwhile is no bus error.
    """
    buffer = bytearray(_CHUNK_BYTES)
    with open(path, "rb") as stream:
        while size := stream.readinto(buffer):
            yield np.frombuffer(buffer, dtype, count=size // dtype.itemsize)
            on_bytes(size)


class RangeCheck:
    """Streaming check that every value is in [low, high]; a NaN is not.

    >>> check = RangeCheck(0, 1)
    >>> check(np.array([0, 1, 2], np.uint8))
    >>> check.outside.count
    1
    """

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high
        self.outside = Outside()
        self._position = 0

    def __call__(self, chunk: np.ndarray) -> None:
        """Take the next values."""
        if not chunk.size:
            return
        # read as unsigned, a negative number is above every limit: one pass instead of two
        if chunk.dtype.kind == "i" and self.low == 0 and self.high <= np.iinfo(chunk.dtype).max:
            highest = int(chunk.view(chunk.dtype.str.replace("i", "u")).max())
            sound = highest <= self.high
        else:
            highest = chunk.max().item()
            sound = highest <= self.high and (chunk.dtype.kind == "u" or self.low <= chunk.min().item())
        seen = self.outside
        seen.highest = highest if seen.highest is None else max(seen.highest, highest)
        if not sound:
            self._collect(chunk)
        self._position += chunk.size

    def _collect(self, chunk: np.ndarray) -> None:
        seen = self.outside
        bad = np.flatnonzero(~((chunk >= self.low) & (chunk <= self.high)))
        seen.count += bad.size
        if chunk.dtype.kind == "f":
            seen.nan += int(np.isnan(chunk[bad]).sum())
        for i in bad[: _SHOWN - len(seen.first)]:
            seen.first.append((self._position + int(i), chunk[i].item()))


def check_doc_idx(path: Path, layout: Layout, fault: Report, warning: Report) -> None:
    """``doc_idx`` should be 0, 1, ..., N_docs. No loader here looks at it; other programs do.

    Fewer entries are lawful: several sequences of one document, or a merge that did not extend it.
    """
    entries, documents = layout.doc_idx, len(layout.lengths)
    if not entries.size:
        fault(Fault("doc-idx", f"{path}: doc_idx has no entry, not even the first 0"))
        return
    if entries[0] != 0:
        fault(Fault("doc-idx", f"{path}: doc_idx starts with {entries[0]}, not with 0"))
    beyond = np.flatnonzero((entries < 0) | (entries > documents))
    if beyond.size:
        places = offenders([f"entry {i} is {entries[i]}" for i in beyond[:_SHOWN]], beyond.size)
        fault(Fault("doc-idx", f"{path}: doc_idx leaves the {documents} sequences: {places}", beyond.size))
    falling = np.flatnonzero(entries[1:] < entries[:-1])
    if falling.size:
        places = offenders([f"{entries[i]} then {entries[i + 1]} at entry {i}" for i in falling[:_SHOWN]], falling.size)
        fault(Fault("doc-idx", f"{path}: doc_idx decreases: {places}", falling.size))
    if beyond.size or falling.size:
        return
    groups = entries.size - 1
    if int(entries[-1]) < documents:
        text = f"doc_idx covers {entries[-1]} of {documents} sequences (GPT-NeoX's merge leaves it so)"
    elif groups != documents:
        text = f"doc_idx makes {groups} groups of {documents} sequences"
    else:
        return
    warning(Fault("doc-idx", f"{path}: {text}; it is not used here: each sequence is a document"))


def check_index_caches(prefix: str, fault: Report, warning: Report) -> None:
    """Name the index caches beside the data that GPT-NeoX and megatron-core would unpickle."""
    data = Path(prefix)
    found = sorted(data.parent.glob(f"{_literal(data.name)}_*indexmap_*.npy"))
    found += sorted((data / "cache").glob("*_indices/*.npy"))
    if not found:
        return
    names = [path.name for path in found]
    warning(
        Fault(
            "index-cache",
            f"{offenders(names, len(names))} beside {prefix}: index caches, which GPT-NeoX and megatron-core load with "
            "allow_pickle; delete them unless nobody but you can write there (they are made again)",
            len(found),
        )
    )
    hostile = [path.name for path in found if _would_be_unpickled(path)]
    if hostile:
        text = (
            f"{offenders(hostile, len(hostile))} beside {prefix}: a pickle, not an array of numbers: loading it runs "
        )
        fault(Fault("index-cache", text + "code; delete it, and ask who put it there", len(hostile)))


def _literal(name: str) -> str:
    """A glob pattern for exactly ``name``."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _would_be_unpickled(path: Path) -> bool:
    """Whether ``np.load(path, allow_pickle=True)`` would run a pickle: reads the header only."""
    try:
        with open(path, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(stream)[2].hasobject
    except OSError:
        return False  # nobody can load it
    except ValueError:
        return True  # not an array at all: np.load falls back to pickle
