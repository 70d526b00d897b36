"""What a dataset contains, as a few hashes that are cheap to compare.

Lengths alone identify nothing (corpora cut to a fixed length all look alike), so the fingerprint
includes a hash of every value. It is taken once, while the file is written or first read, and then
found again by the size and modification time of the two files. So is the range of the token ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.indexed import IndexedDataset
from ifguide.data.sidecar import FileStates, file_states, sidecar_path
from ifguide.errors import IFGuideError
from ifguide.system.cache import private_folder
from ifguide.system.files import hash_file, hash_value, write_json
from ifguide.system.progress import Progress

Fingerprint = dict[str, Any]

RANGE = "range"
"""Key of the smallest and largest value in sidecars and caches."""
_CHUNK = 1 << 22

_LABELS = {
    "documents": "documents",
    "tokens": "tokens",
    "dtype": "dtype",
    "index_hash": "hash of the index",
    "content_hash": "content hash",
}


def fingerprint(dataset: IndexedDataset, progress: bool = False) -> Fingerprint:
    """``documents``, ``tokens``, ``dtype``, ``index_hash`` (lengths, doc_idx and dtype) and
    ``content_hash`` (the bytes of the .bin) of ``dataset``.

    Reads the whole .bin unless the dataset's own sidecar, or a private cache in
    ``$XDG_CACHE_HOME/gpt-neox-ifguide``, knows these very files by size and modification time.
    """
    known = known_fingerprint(dataset)
    if known is not None:
        return known
    size = dataset.bin_path.stat().st_size
    states = file_states(dataset.index_path, dataset.bin_path)
    with Progress(size, "B", f"hash {dataset.bin_path.name}", quiet=not progress) as bar:
        content_hash = hash_file(dataset.bin_path, on_bytes=bar.update)
    result = make_fingerprint(dataset.dtype, dataset.lengths, dataset.doc_idx, content_hash)
    remember(dataset, states, result)
    return result


def token_range(dataset: IndexedDataset, progress: bool = False) -> tuple[int, int]:
    """The smallest and the largest value of ``dataset``, found or taken as its `fingerprint` is."""
    known = known_range(dataset)
    if known is not None:
        return known
    states = file_states(dataset.index_path, dataset.bin_path)
    low, high = int(dataset.values[0]), int(dataset.values[0])
    silent = not progress or dataset.num_tokens <= _CHUNK  # there is nothing to wait for
    with Progress(dataset.num_tokens, "tokens", f"read {dataset.bin_path.name}", quiet=silent) as bar:
        for start in range(0, dataset.num_tokens, _CHUNK):
            chunk = dataset.values[start : start + _CHUNK]
            low, high = min(low, int(chunk.min())), max(high, int(chunk.max()))
            bar.update(len(chunk))
    _keep(_cache_path(dataset.prefix), states, {RANGE: [low, high]})
    return low, high


def remember(dataset: IndexedDataset, states: FileStates, found: Fingerprint) -> None:
    """Keep the fingerprint of ``dataset``, whose files were in ``states`` before they were hashed."""
    _keep(_cache_path(dataset.prefix), states, {"fingerprint": found})


def keep_beside(
    path: Path,
    dataset: IndexedDataset,
    *,
    found: Fingerprint | None = None,
    values: tuple[int, int] | None = None,
) -> None:
    """Add the fingerprint or the range of ``dataset`` to ``path``, for machines that have another cache."""
    known = {"fingerprint": found, RANGE: values and list(values)}
    states = file_states(dataset.index_path, dataset.bin_path)
    _keep(path, states, {key: value for key, value in known.items() if value is not None})


def known_fingerprint(dataset: IndexedDataset, beside: Path | None = None) -> Fingerprint | None:
    """The fingerprint of ``dataset`` if it is known without hashing its values, also from `keep_beside`."""
    shape = {"documents": dataset.num_documents, "tokens": dataset.num_tokens, "dtype": dataset.dtype.name}
    for path, entry in _entries(dataset, beside):
        found = entry.get("fingerprint") or {}
        # a sidecar that contradicts the index is not believed about the content either
        if _is_fingerprint(found) and shape.items() <= found.items():
            if path == beside:  # whoever asks later does not know where to look
                remember(dataset, entry["files"], found)
            return found
    return None


def known_range(dataset: IndexedDataset, beside: Path | None = None) -> tuple[int, int] | None:
    """The `token_range` of ``dataset`` if it is known without reading its values, also from `keep_beside`."""
    for _, entry in _entries(dataset, beside):
        match entry.get(RANGE):
            case [int(low), int(high)] if low <= high:
                return low, high
    return None


def make_fingerprint(dtype: np.dtype, lengths: np.ndarray, doc_idx: np.ndarray, content_hash: str) -> Fingerprint:
    """The fingerprint of a dataset with these ``lengths``[N_docs], ``doc_idx`` and content."""
    digest = hashlib.blake2b(digest_size=32)
    digest.update(f"{np.dtype(dtype).name} {len(lengths)} {len(doc_idx)}".encode())
    for array in (lengths, doc_idx):
        for begin in range(0, len(array), _CHUNK):
            digest.update(np.ascontiguousarray(array[begin : begin + _CHUNK], dtype="<i8").data)
    return {
        "documents": len(lengths),
        "tokens": int(np.sum(lengths, dtype=np.int64)),
        "dtype": np.dtype(dtype).name,
        "index_hash": digest.hexdigest(),
        "content_hash": content_hash,
    }


def differences(expected: Fingerprint, found: Fingerprint) -> list[str]:
    """What differs between two fingerprints, as in ``documents 120 != 121``; empty if nothing does."""
    return [
        f"{label} {_short(expected.get(key))} != {_short(found.get(key))}"
        for key, label in _LABELS.items()
        if expected.get(key) != found.get(key)
    ]


def _entries(dataset: IndexedDataset, beside: Path | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What is recorded of ``dataset`` with its files as they are now, and where; ``beside`` last."""
    states = file_states(dataset.index_path, dataset.bin_path)
    for path in (sidecar_path(dataset.prefix), _cache_path(dataset.prefix), beside):
        entry = {} if path is None else _read_quietly(path)
        if path is not None and entry.get("files") == states:
            yield path, entry


def _keep(path: Path | None, states: FileStates, found: dict[str, Any]) -> None:
    """Add to what ``path`` knows of files in these ``states``."""
    if path is None:
        return
    before = _read_quietly(path)
    known = before if before.get("files") == states else {"files": states}
    # a read-only or full home only costs the next caller another pass
    with contextlib.suppress(IFGuideError, OSError):
        write_json(path, {**known, **found})


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _LABELS.keys()


def _read_quietly(path: Path) -> dict[str, Any]:
    """A cache entry; a missing or damaged one is no fault, it only has to be taken again."""
    if not path.is_file():  # reading a pipe would wait for ever
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _cache_path(prefix: str) -> Path | None:
    folder = private_folder("fingerprints")
    return None if folder is None else folder / f"{hash_value(str(Path(prefix).resolve()))}.json"


def _short(value: Any) -> str:
    """Twelve digits of a hash are enough to tell two apart in a message."""
    text = str(value)
    return text[:12] if len(text) == 64 else text
