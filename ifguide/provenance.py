"""The replayable record of a run: command, versions, revision, seeds, inputs, timings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ifguide
from ifguide.files import write_json

_PACKAGES = (
    "numpy", "torch", "transformers", "tokenizers", "deepspeed", "megatron-core", "kronfluence", "safetensors",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of this package, Python and every installed library that can change a number."""
    found = {"gpt-neox-ifguide": ifguide.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision(folder: str | os.PathLike | None = None) -> str | None:
    """Revision of the checkout that holds ``folder`` (default: this package), '+' if edited; else None."""
    where = str(folder or Path(__file__).parent)
    try:
        revision = subprocess.run(
            ["git", "-C", where, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        edited = subprocess.run(
            ["git", "-C", where, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+" if edited else "")


def environment() -> dict[str, Any]:
    """Versions, revision, machine and time: the part of a record that no caller has to supply."""
    return {
        "versions": versions(),
        "revision": git_revision(),
        "machine": {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write_run_record(folder: str | os.PathLike, **fields: Any) -> None:
    """Write ``run.json`` into ``folder``: the environment, the command line, and ``fields``
    (config, seeds, input fingerprints, timings)."""
    write_json(Path(folder) / "run.json", {"command": sys.argv, **environment(), **fields})


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
