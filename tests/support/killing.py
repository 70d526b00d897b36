"""Run a verb in a process of its own and kill it in the middle, as a scheduler or a power cut does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def kill_after_lines(command: list[str], journal: Path, lines: int, timeout: float = 120.0) -> int:
    """SIGKILL ``ifguide COMMAND`` once ``journal`` has ``lines`` lines; returns how many it has then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ifguide.cli", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + timeout
    while _lines(journal) < lines:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"ended before it could be killed: {process.wait()}, {_lines(journal)} lines")
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return _lines(journal)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
