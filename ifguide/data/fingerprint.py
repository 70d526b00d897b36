"""What a dataset contains, as a few hashes that are cheap to compare.

Lengths alone identify nothing (corpora cut to a fixed length all look alike), so the fingerprint
includes a hash of every value. It is taken once, while the file is written or first read, and then
found again by the size and modification time of the two files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
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


def remember(dataset: IndexedDataset, states: FileStates, found: Fingerprint) -> None:
    """Keep the fingerprint of ``dataset``, whose files were in ``states`` before they were hashed."""
    cache = _cache_path(dataset.prefix)
    # a read-only or full home only costs the next caller another pass
    if cache is not None:
        with contextlib.suppress(IFGuideError, OSError):
            write_json(cache, {"files": states, "fingerprint": found})


def known_fingerprint(dataset: IndexedDataset) -> Fingerprint | None:
    """The fingerprint of ``dataset`` if it is known without hashing its values."""
    states = file_states(dataset.index_path, dataset.bin_path)
    shape = {"documents": dataset.num_documents, "tokens": dataset.num_tokens, "dtype": dataset.dtype.name}
    for path in (sidecar_path(dataset.prefix), _cache_path(dataset.prefix)):
        entry = {} if path is None else _read_quietly(path)
        found = entry.get("fingerprint") or {}
        # a sidecar that contradicts the index is not believed about the content either
        if entry.get("files") == states and _is_fingerprint(found) and shape.items() <= found.items():
            return found
    return None


def make_fingerprint(dtype: np.dtype, lengths: np.ndarray, doc_idx: np.ndarray, content_hash: str) -> Fingerprint:
    """The fingerprint of a dataset with these ``lengths``[N_docs], ``doc_idx`` and content."""
    digest = hashlib.blake2b(digest_size=32)
    digest.update(f"{np.dtype(dtype).name} {len(lengths)} {len(doc_idx)}".encode())
    digest.update(np.ascontiguousarray(lengths, dtype="<i8").data)
    digest.update(np.ascontiguousarray(doc_idx, dtype="<i8").data)
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
