"""What this machine has: memory and disk."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ifguide.errors import InputError
from ifguide.system.processes import host_memory


@dataclass(frozen=True)
class Limits:
    """What a run may use, in bytes.

    Attributes:
        device: memory of the device that computes; None is unknown. On a CPU the machine's own.
        host: memory of the machine, or of the container.
        disk: free where the output goes.
        temporary: free in the system's folder for temporary files; None where that is the same file system.
    """

    device: int | None
    host: int | None
    disk: int
    temporary: int | None


def limits(device: str, device_memory: float | None, disk: str | Path) -> Limits:
    """
    Args:
        device: "cpu" or "cuda".
        device_memory: GB that stand for what the device has.
        disk: the output's folder; need not exist yet.

    Raises:
        InputError: no part of ``disk`` exists.
    """
    given = None if device_memory is None else int(device_memory * 1e9)
    host = host_memory()
    if device == "cpu":
        host = host if given is None else given
        found = host
    else:
        found = _gpu_memory() if given is None else given
    folder, temporary = _existing(Path(disk)), Path(tempfile.gettempdir())
    same = folder.stat().st_dev == temporary.stat().st_dev
    return Limits(found, host, shutil.disk_usage(folder).free, None if same else shutil.disk_usage(temporary).free)


def _gpu_memory() -> int | None:
    import torch

    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None


def _existing(path: Path) -> Path:
    """``path`` or the nearest folder above it that exists."""
    path = path.absolute()
    for folder in (path, *path.parents):
        if folder.is_dir():
            return folder
    raise InputError(f"--disk {path}: no such folder")
