"""Large tensors: on disk, with a record that says what they are, on the way to a device, and whether they are sound."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.system.cache import file_hash
from ifguide.system.files import atomic_path, hash_value, read_json, write_json


def save_tensors(path: str | os.PathLike, tensors: dict[str, Tensor]) -> None:
    """Atomically write ``tensors`` as safetensors.

    Raises:
        InputError: the folder does not exist or cannot be written.
        OutOfSpaceError: the disk filled up.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            # the library tells the system's error in its text alone
            known = (number for number in (errno.ENOSPC, errno.EDQUOT) if f"(os error {number})" in str(error))
            raise OSError(next(known, errno.EIO), str(error)) from error


def save_recorded(path: Path, record: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write ``tensors``, then into ``record`` what is said ``about`` them and their hashes.

    A record is never there without its tensors.

    Raises:
        InputError, OutOfSpaceError: as `save_tensors`.
    """
    save_tensors(path, tensors)
    write_json(record, {**about, **hashes_of(path)})


def load_recorded(
    path: Path, record: Path, identity: dict[str, Any], what: str
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save_recorded` wrote: tensors and record; None unless both are there, belong together, and have this
    ``identity`` in the record.

    Args:
        what: they are, for a message.

    Raises:
        InputError: the record is no JSON.
    """
    from safetensors.torch import load_file

    if not (path.exists() and record.exists()):
        return None
    known = read_json(record, what)
    if known.get("identity") != identity or not are_recorded(path, known):
        return None
    return load_file(path), known


def hashes_of(path: Path) -> dict[str, str]:
    """What a record says of tensors that this process has just written: ``tensors``, the hash of their file, and
    ``pieces``, by which several threads can tell that both still belong together."""
    with ThreadPoolExecutor(1) as thread:
        whole = thread.submit(file_hash, path, just_written=True)
        pieces = file_hash(path, just_written=True, pieces=True)
        return {"tensors": whole.result(), "pieces": hash_value([whole.result(), pieces])}


def are_recorded(path: Path, record: dict[str, Any]) -> bool:
    """Whether ``path`` is the very file of which `hashes_of` made this part of a ``record``; one of an earlier version
    has no ``pieces``."""
    if "pieces" not in record:
        return bool(record.get("tensors") == file_hash(path))
    return bool(record["pieces"] == hash_value([record.get("tensors"), file_hash(path, pieces=True)]))


def all_finite(tensor: Tensor) -> bool:
    """`torch.isfinite` of all numbers, by the smallest and the largest: what is not a number is both of them. On a
    processor that is ten times as fast, and factors are tens of GB."""
    ends = torch.stack(torch.aminmax(tensor)) if tensor.numel() else tensor
    return bool(torch.isfinite(ends).all())


def moved(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``tensor`` on ``device`` in ``dtype``, which a GPU makes of it after it has come, or before it leaves.

    `Tensor.to` with both has the processor do that, a few times slower than the copy.
    """
    return tensor.to(dtype).to(device) if device.type == "cpu" else tensor.to(device).to(dtype)
