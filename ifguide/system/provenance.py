"""The replayable record of a run: command, versions, revision, seeds, inputs, timings."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ifguide
from ifguide.system.files import hash_unchanged, write_json

_PACKAGES = (
    "numpy", "torch", "transformers", "tokenizers", "deepspeed", "megatron-core", "kronfluence", "safetensors",
    "lm_eval", "datasets", "scikit-learn",
)  # fmt: skip

_command: list[str] = []
_request: Any = None
_started: float | None = None


@contextlib.contextmanager
def running(command: Sequence[str], request: Any = None) -> Iterator[None]:
    """Make ``command`` what `command` answers inside the block, and the block's start the start of the run.

    Args:
        request: what decides the command's product (`ifguide.system.outputs.Request`), for `origin`.
    """
    global _command, _request, _started
    before = _command, _request, _started
    _command, _request, _started = list(command), request, time.time()
    try:
        yield
    finally:
        _command, _request, _started = before


def command() -> list[str]:
    """The command being run, as ``["ifguide", VERB, ...]`` however it was started; [] when called as a library."""
    return list(_command)


def origin() -> dict[str, Any]:
    """What a sidecar says about who wrote it: ``command``, the ``folder`` that its relative paths start from, and
    the ``request`` by which the same command is known again (not of a library call)."""
    said = {"command": command(), "folder": str(Path.cwd())}
    return said if _request is None else {**said, "request": _request.as_dict()}


def file_record(path: str | os.PathLike) -> dict[str, Any]:
    """What a sidecar says about a file that was read: absolute ``path``, ``bytes`` and ``hash`` (None of a pipe)."""
    path = Path(path).absolute()
    return {"path": str(path), "bytes": path.stat().st_size, "hash": hash_unchanged(path) if path.is_file() else None}


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


def environment(started: float | None = None) -> dict[str, Any]:
    """Versions, revision, machine and time: the part of a record that no caller has to supply.

    Args:
        started: when the work began, by `time.time`; default, when the running command did (now, in a library call).
    """
    began = started or _started or time.time()
    return {
        "versions": versions(),
        "revision": git_revision(),
        "machine": {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
    }


def write_run_record(folder: str | os.PathLike, began: float | None = None, **fields: Any) -> None:
    """Write ``run.json`` into ``folder``: the environment, the command line, and ``fields``
    (config, seeds, input fingerprints, timings).

    Args:
        began: as ``started`` of `environment`.
    """
    about = {**origin(), "command": command() or sys.argv, **environment(began)}
    write_json(Path(folder) / "run.json", {**about, **fields})


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
