"""What there is here: Python, torch's build and its devices, cores, threads and disk."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ifguide.system.processes import host_memory, usable_cores

GIB = 2**30
# what a run of the quickstart writes, with room for caches
LEAST_FREE = 2 * GIB
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

# in a process of its own: a broken build may abort, and the import takes seconds and memory
_ASK_TORCH = """
import json, torch
devices = [
    {"name": torch.cuda.get_device_name(i), "memory": torch.cuda.get_device_properties(i).total_memory}
    for i in range(torch.cuda.device_count())
]
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip, "devices": devices,
    "threads": torch.get_num_threads(), "sum": torch.ones(2, 2).matmul(torch.ones(2, 2)).sum().item(),
}))
"""


def python() -> dict[str, str]:
    """``version`` and ``executable`` of the running Python."""
    return {"version": platform.python_version(), "executable": sys.executable}


def torch_build(seconds: float = 120) -> dict[str, Any]:
    """The build of torch and its devices, as torch itself says in a process of its own.

    Returns:
        ``version``, ``cuda`` and ``hip`` (None: not built for it), ``devices`` (``name``, ``memory`` in bytes) and
        ``threads``; or ``error`` alone, one line, where torch does not work.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH],
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=tempfile.gettempdir(),
        )
    except subprocess.TimeoutExpired:
        return {"error": f"importing torch takes longer than {seconds:.0f} s"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": said[-1]}
    answer = json.loads(lines[-1])
    if answer.pop("sum") != 8.0:
        return {"error": "torch multiplies two matrices of ones wrongly"}
    return answer


def cores() -> dict[str, Any]:
    """``usable`` cores, ``memory`` in bytes (None: unknown) and what the environment sets about ``threads``."""
    threads = {name: os.environ[name] for name in _THREADS if name in os.environ}
    return {"usable": usable_cores(), "memory": host_memory(), "threads": threads}


def disk(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """For each role -> folder: ``role``, ``folder``, bytes ``free``, and whether it is ``writable``."""
    rows = []
    for role, folder in folders.items():
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        rows.append({
            "role": role,
            "folder": str(folder),
            "free": shutil.disk_usage(there).free,
            "writable": os.access(there, os.W_OK),
        })  # fmt: skip
    return rows
