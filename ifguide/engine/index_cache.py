"""Where the sample indices of megatron-core are kept: privately, and keyed by all that they depend on.

Its own default, a folder beside the data named without the content of the data, would serve stale
indices for changed data, and it loads what it finds with ``allow_pickle``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.distributed

from ifguide.system.cache import cached_folder
from ifguide.system.files import hash_value
from ifguide.system.run_process import this_process


@contextlib.contextmanager
def index_folder(key: dict[str, Any]) -> Iterator[str]:
    """The folder for the indices of ``key``, the same on every process of the run; the first one builds it."""
    distributed = this_process().world_size > 1
    with contextlib.ExitStack() as stack:
        chosen = [""]
        if this_process().leads:
            chosen[0] = str(stack.enter_context(cached_folder("indices", hash_value(key))))
        if distributed:
            torch.distributed.broadcast_object_list(chosen, src=0)
        yield chosen[0]
        if distributed:
            torch.distributed.barrier()  # every process has opened the files: they stay readable whatever their name
