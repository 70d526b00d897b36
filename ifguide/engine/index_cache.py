"""Where the sample indices of megatron-core are kept: privately, and keyed by all that they depend on.

Its own default, a folder beside the data named without the content of the data, would serve stale
indices for changed data, and it loads what it finds with ``allow_pickle``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed

from ifguide.files import hash_value


@contextlib.contextmanager
def index_folder(key: dict[str, Any]) -> Iterator[str]:
    """The folder for the indices of ``key``, the same on every process.

    A folder is built under a temporary name and renamed when it is complete: a killed run or two
    runs at once never leave half an index for the next one.
    """
    root = _root()
    final = root / hash_value(key)
    distributed = torch.distributed.is_initialized()
    first = not distributed or torch.distributed.get_rank() == 0
    chosen = [str(final)]
    if first and not final.is_dir():
        chosen[0] = tempfile.mkdtemp(prefix=f".{final.name}.", dir=root)
    if distributed:
        torch.distributed.broadcast_object_list(chosen, src=0)
    building = first and chosen[0] != str(final)
    try:
        yield chosen[0]
        if distributed:
            torch.distributed.barrier()
        if building:
            # fails if another run built the same meanwhile: then ours goes, and what is open stays readable
            with contextlib.suppress(OSError):
                Path(chosen[0]).rename(final)
    finally:
        if building:
            shutil.rmtree(chosen[0], ignore_errors=True)


def _root() -> Path:
    """``$XDG_CACHE_HOME/gpt-neox-ifguide/indices``, or a new temporary folder where it cannot be written."""
    # Path.home() raises where the user has no home (containers with arbitrary ids); this does not
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    root = Path(home) / "gpt-neox-ifguide" / "indices"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="gpt-neox-ifguide-"))
    return root if os.access(root, os.W_OK) else Path(tempfile.mkdtemp(prefix="gpt-neox-ifguide-"))
