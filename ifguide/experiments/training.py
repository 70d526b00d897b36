"""Training one model of a job: the user's own command line, run as a process of its own."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from ifguide.system.files import write_text
from ifguide.system.processes import as_only_process, run_logged

_PACKAGES = Path(__file__).resolve().parents[2]  # where `ifguide` is imported from


def write_overlay(path: Path, header: str, keys: dict[str, Any]) -> None:
    """A configuration file of ``keys``, with a comment on what it is for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"# {header}\n" + yaml.safe_dump(keys, sort_keys=False))


def train(configs: list[Path], log: Path, name: str, threads: int, say: Callable[[str], None]) -> None:
    """``python -m ifguide.launch train.py ...`` with its output in ``log`` and its lines told to ``say``.

    Args:
        configs: absolute paths.
        threads: CPU threads of each process.

    Raises:
        IFGuideError: training failed; ends with its last lines.
    """
    command = [sys.executable, "-m", "ifguide.launch", "train.py", *map(str, configs)]
    command.append("--overwrite")  # the stage before has decided that this model is made anew
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(_PACKAGES))))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    run_logged(command, log, f"training '{name}'", environment, say)


def train_here(configs: list[Path], log: Path, name: str, threads: int, say: Callable[[str], None]) -> None:
    """What `train` does without a launcher and without a process of its own: the worker's code, in this process.

    For a toy: it leaves behind what the libraries set up for a training, and ``threads`` stay as they are.

    Raises:
        IFGuideError: training failed.
    """
    import torch

    from ifguide.engine import worker
    from ifguide.engine.settings import load_config

    settings = load_config(configs)
    with as_only_process(without_gpu=not torch.cuda.is_available()):
        import deepspeed  # noqa: F401  its logger keeps the stdout that it finds

        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as record, redirect_stdout(record):
            worker.train(settings, ["train_here", name], time.time())
    say(f"  {name}: {log.read_text(encoding='utf-8').strip().splitlines()[-1]}")


def publish_model(checkpoint: Path, target: Path) -> None:
    """Copy the Hugging Face folder of a finished run to where readers look for it."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(checkpoint / "hf", target)
