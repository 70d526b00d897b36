"""What several processes of one run on one machine need; standard library only, for launchers of both engines."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

# How threads of torch's OpenMP (GNU's) wait for each other: they spin a little, then sleep. Spinning as long as its
# default does costs most of the speed as soon as other work is on the cores; sleeping at once costs a sixth on a quiet
# machine (benchmarks/RESULTS.md). The library reads this when it loads.
WAITING = {"GOMP_SPINCOUNT": "1000"}
_WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # any of them is the user's own choice

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 1 << 30
_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def usable_cores() -> int:
    """Cores that this process may run on (a container or `taskset` may allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int | None:
    """Bytes of the machine's memory, or what its container allows; None where the system does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _GROUP_LIMITS:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            total = min(total, int(text))
    return total


def only_process() -> dict[str, str]:
    """The variables that a launcher would set for a run of one process."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return {**rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


@contextlib.contextmanager
def as_only_process(without_gpu: bool) -> Iterator[None]:
    """The environment that a launcher gives the only process of a run; afterwards it is what it was.

    Args:
        without_gpu: there is none, so DeepSpeed need not look for one.
    """
    saved = dict(os.environ)
    if without_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.update(only_process())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def let_waiting_threads_sleep() -> None:
    """Put `WAITING` into the environment of this process and of those it starts, unless the user has chosen.

    It comes too late for this process once torch is imported.
    """
    if not any(name in os.environ for name in _WAITING_VARIABLES):
        os.environ.update(WAITING)


def share_cores(processes: int) -> None:
    """Give each of ``processes`` its part of the cores, unless the user has set OMP_NUM_THREADS."""
    let_waiting_threads_sleep()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))


def free_port() -> int:
    """A port that nobody listens on, so that two runs on one machine do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keep_freed_memory() -> None:
    """Ask glibc to serve buffers up to 1 GB from its heap and not to shrink it.

    Tensors of a few megabytes are otherwise mapped, zeroed page by page and unmapped in every batch, which
    costs a small model on a CPU a fifth of its time. Does nothing where the C library is another.
    """
    libc = _glibc()
    if libc:
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def release_freed_memory() -> None:
    """Hand back what was kept, before other processes need the room."""
    libc = _glibc()
    if libc:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is one with these functions."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None
