"""TensorBoard and Weights & Biases, under GPT-NeoX's own keys and with its names of what is logged.

Both packages are optional. `tracker_faults` says before anything starts that one is missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ifguide.errors import first_line

# where GPT-NeoX logs a quantity under another name than our log has for it
_NAMES = {"train/lr": "train/learning_rate", "train/tokens_per_second": "runtime/tokens_per_sec"}
_GROUPS = {"valid": "validation"}
_OWN_HOST = "https://api.wandb.ai"


def tracker_faults(config: Any) -> Iterator[str]:
    """A line for each tracker that ``config``, a `TrainConfig`, asks for and that is not installed."""
    if config.tensorboard_dir and not _installed("tensorboard"):
        yield "tensorboard_dir: the package tensorboard is not installed; install it, or leave the key out"
    if config.use_wandb and not _installed("wandb"):
        yield "use_wandb: the package wandb is not installed; install it, or leave the key out"


class Trackers:
    """What the logging process tells the trackers that a configuration asks for.

    Args:
        config: a `TrainConfig`.
        first_iteration: of this run: what TensorBoard has from it on comes again.

    Attributes:
        notes: lines for people, on a tracker that could not start.
    """

    def __init__(self, config: Any, first_iteration: int):
        self.notes: list[str] = []
        self._board: Any = None
        self._run: Any = None
        if config.tensorboard_dir:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(log_dir=config.tensorboard_dir, purge_step=first_iteration)
        if config.use_wandb:
            self._run = self._start_wandb(config)

    def scalars(self, values: Mapping[str, Any], group: str) -> None:
        """The numbers of ``values``, which has its ``iteration``; ``group``: ``train`` or the split."""
        step = values["iteration"]
        found = {
            name_of(group, key): value
            for key, value in values.items()
            if key != "iteration" and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        if self._board:
            for name, value in found.items():
                self._board.add_scalar(name, value, step)
        if self._run:
            self._run.log(found, step=step)

    def close(self) -> None:
        """What is still buffered is written."""
        if self._board:
            self._board.close()
        if self._run:
            self._run.finish()

    def _start_wandb(self, config: Any) -> Any:
        """The run; None, with a note, where W&B refuses: training goes on without it, as GPT-NeoX's does."""
        wandb: Any = importlib.import_module("wandb")
        if config.wandb_host != _OWN_HOST:
            os.environ.setdefault("WANDB_BASE_URL", config.wandb_host)
        try:
            return wandb.init(
                project=config.wandb_project,
                group=config.wandb_group,
                name=config.wandb_run_name,
                entity=config.wandb_team,
                config=asdict(config),
                save_code=False,
            )
        except Exception as error:  # of any kind: a tracker is no reason to lose a run
            reason = first_line(error)
            self.notes.append(f"W&B is left out: {reason} (`wandb login`, or WANDB_MODE=offline)")
            return None


def name_of(group: str, key: str) -> str:
    """What GPT-NeoX calls the quantity ``key`` of our log."""
    name = f"{_GROUPS.get(group, group)}/{key}"
    return _NAMES.get(name, name)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
