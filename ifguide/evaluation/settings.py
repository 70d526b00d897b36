"""What `ifguide evaluate` is asked for, and every fault of that which can be seen before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ifguide.errors import ConfigError, InputError
from ifguide.models.devices import choose_device, own_device
from ifguide.models.folder import require_model_folder
from ifguide.system.run_process import this_process

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class EvaluationSettings:
    """What to evaluate, and how.

    Attributes:
        model: Hugging Face folder of a causal language model.
        tasks: names of lm-eval tasks or groups, or YAML files of tasks.
        output: folder for the results; a second run continues there.
        scorers: specs, see `ifguide.scorers.registry`; the first is the main one.
        data: folder of local JSONL for the ifguide tasks; None reads from the hub.
        limit: documents of each task, a seeded sample of them (`ifguide.evaluation.sampled_docs`); None for all.
        limit_seed: of that sample, apart from ``seed``: evaluations of two seeds answer the same prompts.
        batch_size: sequences at once, or ``auto``: what fits.
        seed: of everything drawn.
        device: ``auto`` (a GPU where there is one), or torch's name of one.
        dtype: of the weights: a key of `DTYPES`.
        rad: spec of the scorer that steers the decoding (RAD), None for plain sampling.
        rad_weight: nats that its reward is worth.
        rad_top_k: candidates a step.
        rescore_prompts: RTP's prompts are called toxic by the main scorer, not by the data set.
        overwrite: throw away what the folder holds of another model or decoding.
        eod_token: the token that starts a document and ends a text, None for the model's own.
    """

    model: Path
    tasks: tuple[str, ...]
    output: Path
    scorers: tuple[str, ...] = ()
    data: Path | None = None
    limit: int | None = None
    limit_seed: int = 0
    batch_size: int | str = "auto"
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    rad: str | None = None
    rad_weight: float = 10.0
    rad_top_k: int = 20
    rescore_prompts: bool = False
    overwrite: bool = False
    eod_token: str | None = None

    def check(self) -> None:
        """
        Raises:
            ConfigError: every fault that can be seen before anything is loaded, one line each.
        """
        faults = []
        try:
            require_model_folder(self.model, "language model")
        except InputError as error:
            faults.append(str(error))
        if not self.tasks:
            faults.append("--tasks names no task")
        if self.data is not None and not self.data.is_dir():
            faults.append(f"--data {self.data} is not a folder; `ifguide fetch-eval-data` writes one")
        if self.limit is not None and self.limit < 1:
            faults.append(f"--limit {self.limit} must be at least 1")
        if self.limit_seed < 0:
            faults.append(f"--limit-seed {self.limit_seed} must not be negative")
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            faults.append(f"--batch-size {self.batch_size} must be a positive number or auto")
        if self.seed < 0:
            faults.append(f"--seed {self.seed} must not be negative")
        if self.dtype not in DTYPES:
            faults.append(f"--dtype {self.dtype} must be one of {', '.join(DTYPES)}")
        try:
            choose_device(self.device)
        except InputError as error:
            faults.append(str(error))
        if len(set(self.scorers)) != len(self.scorers):
            faults.append(f"--scorer names one scorer twice: {', '.join(self.scorers)}")
        processes = this_process().local_size
        if processes > 1 and self.device.startswith("cuda:"):
            faults.append(f"--device {self.device} is one GPU and there are {processes} processes; give cuda or auto")
        elif processes > 1 and self.torch_device != "cpu" and processes > torch.cuda.device_count():
            faults.append(
                f"{processes} processes and {torch.cuda.device_count()} GPUs: each needs its own; start fewer, or give "
                "--device cpu"
            )
        if faults:
            raise ConfigError(faults)

    @property
    def torch_device(self) -> str:
        """Torch's name of this process's device; each process of a node has a GPU of its own."""
        return own_device(self.device)
