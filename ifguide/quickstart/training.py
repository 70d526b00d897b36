"""Training the quickstart's models: the user's own command line, run as a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ifguide.errors import IFGuideError, InputError
from ifguide.system.files import write_text

REPOSITORY = Path(__file__).resolve().parents[2]
_TAIL_LINES = 5


def write_overlay(path: Path, header: str, keys: dict[str, Any]) -> None:
    """A configuration file of ``keys``, with a comment on what it is for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"# {header}\n" + yaml.safe_dump(keys, sort_keys=False))


def train(configs: list[Path | str], log: Path, name: str, threads: int, say: Callable[[str], None]) -> None:
    """``python deepy.py train.py -d configs ...`` with its output in ``log`` and its lines told to ``say``.

    Args:
        configs: below the repository's ``configs`` folder, or absolute.
        threads: CPU threads of each process.

    Raises:
        InputError: the repository's deepy.py is not there (an installation without the checkout).
        IFGuideError: training failed; ends with its last lines.
    """
    if not (REPOSITORY / "deepy.py").is_file():
        raise InputError(f"{REPOSITORY} has no deepy.py: the quickstart runs from a checkout of gpt-neox-ifguide")
    command = [sys.executable, "deepy.py", "train.py", "-d", "configs", *map(str, configs)]
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    with (
        open(log, "w", encoding="utf-8") as record,
        subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                record.write(line)
                if line.strip():
                    say(f"  {name}: {line.rstrip()}")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        tail = log.read_text(encoding="utf-8").strip().splitlines()[-_TAIL_LINES:]
        raise IFGuideError(f"training '{name}' failed (exit {process.returncode}, log {log}): " + " | ".join(tail))


def publish_model(checkpoint: Path, target: Path) -> None:
    """Copy the Hugging Face folder of a finished run to where readers look for it."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(checkpoint / "hf", target)
