"""The sidecar: ``P.json`` beside ``P.idx`` and ``P.bin``, saying what the dataset is and where it came from.

Fields that every sidecar has: ``format_version``; ``kind`` (`TOKENS`, `SCORES`, `PENALTIES`, `BOUNDARIES` or `LABELS`);
``fingerprint``, of the dataset itself; ``files``, the state of its two files when it was taken; and
``tool``, the versions that wrote it. Aligned datasets add ``data``, the fingerprint of their tokens.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.system.files import read_json

FORMAT_VERSION = 1
TOKENS, SCORES, PENALTIES, BOUNDARIES = "tokens", "scores", "penalties", "boundaries"
# of the pairs that GPT-NeoX's DPO reads: a token where it counts, else -100
LABELS = "labels"

# fields that readers look into
_OBJECTS = ("fingerprint", "files", "data", "tokenizer")

FileStates = dict[str, list[int]]


def sidecar_path(prefix: str | os.PathLike) -> Path:
    """``P.json`` of the dataset ``P``."""
    return Path(os.fspath(prefix) + ".json")


def read_sidecar(prefix: str | os.PathLike) -> dict[str, Any]:
    """The sidecar of a dataset, or ``{}`` where it has none (datasets made by NeoX's own tools).

    Raises:
        InputError: it exists and is not a JSON object, or not of the form that this version writes.
    """
    path = sidecar_path(prefix)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"sidecar {path} is not a file")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"sidecar {path} cannot be read: {error.strerror}") from None
    value = read_json(path, "sidecar")
    if not isinstance(value, dict):
        raise InputError(f"sidecar {path} is not a JSON object")
    version = value.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"sidecar {path} has format version {version!r}; this version of gpt-neox-ifguide reads {FORMAT_VERSION}"
        )
    for key in _OBJECTS:
        if not isinstance(value.get(key, {}), dict):
            raise InputError(f"sidecar {path}: '{key}' is not a JSON object; write the dataset again")
    return value


def file_states(index_path: str | os.PathLike, bin_path: str | os.PathLike) -> FileStates:
    """``{"idx": [size, mtime_ns], "bin": [size, mtime_ns]}``: a file that was replaced or edited in
    place has another state, even at the same size."""
    states = {}
    for name, path in (("idx", index_path), ("bin", bin_path)):
        status = Path(path).stat()
        states[name] = [status.st_size, status.st_mtime_ns]
    return states
