"""What the launcher says of a training run: its penalty before it starts, where the model is when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifguide.config.hints import convert_command
from ifguide.penalties.announcement import announcement
from ifguide_patch.run_state import state
from ifguide_patch.script import is_training


def before(config: Mapping[str, Any]) -> None:
    """Print the penalty of ``config``, keys of GPT-NeoX's YAML files, if a training script is being launched.

    Raises:
        InputError: a mask that cannot be read.
    """
    if not is_training():
        return
    state.announced = config
    for line in announcement(config):
        print(line, flush=True)


def after() -> None:
    """Print where the model of the training that `before` announced is, and what makes a Hugging Face folder of it."""
    if state.announced is None:
        return
    save = state.announced.get("save")
    if not save:
        print("nothing was kept: the configuration names no folder to save into", flush=True)
        return
    try:
        latest = (Path(save) / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        print(f"checkpoints: {save} (this machine sees no file {Path(save) / 'latest'})", flush=True)
        return
    print(f"checkpoint: {Path(save) / latest}", flush=True)
    print(f"next: {convert_command(save)}   (a Hugging Face folder of it)", flush=True)
