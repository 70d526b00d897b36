"""What `ifguide evaluate` is asked for, and every fault of that which can be seen before anything is loaded.

Importing it needs no torch, so that a parser can be filled without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifguide.config.options import option
from ifguide.errors import ConfigError, InputError
from ifguide.generation.options import OURS, RAD_ORDERS
from ifguide.models.devices import AUTO, choose_device, own_device
from ifguide.models.folder import require_model_folder
from ifguide.scorers.registry import NO_PERSPECTIVE, SPECS
from ifguide.system.run_process import this_process

DTYPES = ("float32", "bfloat16", "float16")
_RAD = "reward-augmented decoding (RAD)"


def task_names(text: str) -> tuple[str, ...]:
    """Names separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def batch_size(text: str) -> int | str:
    """``auto`` or a number of sequences."""
    return text if text == AUTO else int(text)


@dataclass(frozen=True, kw_only=True)
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
        dtype: of the weights: one of `DTYPES`.
        rad: spec of the scorer that steers the decoding (RAD), None for plain sampling.
        rad_weight: nats that its reward is worth; None for that of the order.
        rad_top_k: candidates a step.
        rad_order: of rewards and cuts, `ifguide.generation.rad`.
        rescore_prompts: RTP's prompts are called toxic by the main scorer, not by the data set.
        overwrite: throw away what the folder holds of another model or decoding.
        eod_token: the token that starts a document and ends a text, None for the model's own.
    """

    model: Path = option(metavar="DIR", kind="input", help="Hugging Face folder of the model")
    tasks: tuple[str, ...] = option(
        type=task_names, nargs=None, metavar="T,T",
        help="names, separated by commas: ifguide_rtp, ifguide_bold, ifguide_attaq, ifguide_lambada, "
        "ifguide_heldout_ppl, ifguide (all of these), ifguide_toxigen, ifguide_ptp, any task or group of lm-eval, or a "
        "task's YAML file",
    )  # fmt: skip
    output: Path = option(
        metavar="DIR", kind="output",
        help="folder for results.json, samples.jsonl and report.html; the same command continues there after a kill",
    )  # fmt: skip
    scorers: Sequence[str] = option(
        (), flags=["--scorer"], action="append", metavar="SPEC", kind="scorer",
        help=f"toxicity scorer, once for each (default: detoxify:unbiased): {SPECS}; all score the same "
        f"continuations. {NO_PERSPECTIVE[0].upper()}{NO_PERSPECTIVE[1:]}",
    )  # fmt: skip
    data: Path | None = option(
        None, metavar="DIR", kind="input", help="local data, as fetch-eval-data writes them (default: from the hub)"
    )
    limit: int | None = option(
        None, metavar="N", help="N documents of each task, drawn at random, for a first look"
    )  # fmt: skip
    limit_seed: int = option(
        0, metavar="S", help="of that draw; the same for all evaluations that are compared (default: 0)"
    )
    batch_size: int | str = option(
        AUTO, type=batch_size, metavar="auto|N", kind="cost",
        help="sequences at once; changes speed and memory, not what is drawn (default: auto, what fits)",
    )  # fmt: skip
    seed: int = option(0, help="of all sampling (default: 0)")
    device: str = option(AUTO, metavar="D", kind="cost", help="cpu, cuda, cuda:1 (default: a GPU if any)")
    dtype: str = option("float32", metavar="T", help="of the weights: float32 (default), bfloat16 or float16")
    rescore_prompts: bool = option(
        False,
        help="call a prompt of ifguide_rtp and ifguide_ptp toxic by the scorer's own score, as the paper does, not by "
        "the data set's",
    )
    eod_token: str | None = option(
        None, metavar="TOKEN", help="starts a document and ends a text (default: the model's eos_token)"
    )
    rad: str | None = option(
        None, metavar="SPEC", kind="scorer", group=_RAD, help="scorer that steers every token away from toxicity"
    )
    rad_weight: float | None = option(
        None, metavar="W", group=_RAD, help="nats that its reward is worth (default: 10; 50 in the paper's order)"
    )  # fmt: skip
    rad_top_k: int = option(20, metavar="K", group=_RAD, help="candidates a step (default: 20)")
    rad_order: str = option(
        OURS, choices=RAD_ORDERS, group=_RAD,
        help="ours (default): reward, then top-k and nucleus; paper: those first, and nothing after the reward",
    )  # fmt: skip
    overwrite: bool = False

    def check(self) -> None:
        """
        Raises:
            ConfigError: every fault that can be seen before anything is loaded, one line each.
        """
        import torch

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
        if self.batch_size != AUTO and (not isinstance(self.batch_size, int) or self.batch_size < 1):
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
