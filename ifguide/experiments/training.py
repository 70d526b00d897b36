"""Training one model of a job: the user's own command line, run as a process of its own."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from ifguide.system.children import Children, Cost
from ifguide.system.files import write_text
from ifguide.system.processes import as_only_process


def write_overlay(path: Path, header: str, keys: dict[str, Any]) -> None:
    """A configuration file of ``keys``, with a comment on what it is for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"# {header}\n" + yaml.safe_dump(keys, sort_keys=False))


def train(
    configs: list[Path],
    log: Path,
    name: str,
    threads: int,
    say: Callable[[str], None],
    children: Children | None = None,
) -> Cost:
    """``python -m ifguide.launch train.py ...`` with its output in ``log`` and its lines told to ``say``.

    Args:
        configs: absolute paths.
        threads: CPU threads of each process.
        children: the commands of the job; None for a job of this one.

    Raises:
        IFGuideError: training failed; ends with its last lines.
    """
    # the stage before has decided that this model is made anew
    command = [*training_command(configs), "--overwrite"]
    return (children or Children(threads)).run(command, log, name, say, f"training '{name}'")


def training_command(configs: Sequence[Path]) -> list[str]:
    """What trains from these configurations."""
    return [sys.executable, "-m", "ifguide.launch", "train.py", *map(str, configs)]


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


def drop_weights(checkpoint: Path) -> None:
    """Remove weights and optimizer states of a published run; its log and its record stay."""
    for folder in (checkpoint / "hf", *checkpoint.glob("global_step*")):
        shutil.rmtree(folder, ignore_errors=True)
