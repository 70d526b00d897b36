"""Starting a command on several processes, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ifguide.system.processes import free_port

ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


def torchrun(processes: int, logs: Path | None = None) -> list[str]:
    """The command of torchrun, up to the script; ``logs`` gets what each rank prints."""
    kept = [] if logs is None else ["--log-dir", str(logs), "--redirects", "3"]
    return [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}",
        f"--master_port={free_port()}", *kept,
    ]  # fmt: skip


def start(command: Sequence[str | Path], folder: Path) -> subprocess.Popen:
    """``command`` in ``folder``, with the network's hub and GPUs out of sight."""
    return subprocess.Popen(
        [str(part) for part in command], cwd=folder, env={**os.environ, **_ENVIRONMENT},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def printed_by(logs: Path, rank: int) -> str:
    """All that ``rank`` printed."""
    return "".join(path.read_text() for path in sorted(logs.glob(f"*/attempt_0/{rank}/std*.log")))
