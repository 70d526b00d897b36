"""The finished training run whose scores are validated: its configuration, its data, its model.

A run of the embedded engine says all of it in ``run.json``. It is trained again from that record, so nothing but what
is varied on purpose can differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.data.indexed import TokenDataset
from ifguide.errors import ConfigError, InputError, MismatchError
from ifguide.penalties.keys import KEYS as PENALTY_KEYS
from ifguide.system.files import read_json

# of the run that was, not of what it trained: a retraining has its own, or none
_LEFT_OUT = (
    *PENALTY_KEYS,  # without a mask they had no effect
    "save", "load", "master_port", "exit_interval", "checkpoint_factor", "checkpoint_scale",
    "tensorboard_dir", "use_wandb", "wandb_project", "wandb_group", "wandb_run_name", "wandb_team", "wandb_host",
    "extra_save_iters", "keep_last_n_checkpoints", "eval_iters", "eval_interval",
)  # fmt: skip
_PATHS = ("data_path", "vocab_file", "merge_file", "load")
_LISTS_OF_PATHS = ("train_data_paths", "valid_data_paths", "test_data_paths")
_ONLY_SAVE = 1 << 40  # the last iteration is saved all the same


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run of the embedded engine that has ended.

    Attributes:
        folder: that it saved into.
        keys: its configuration without what is of no concern for training it again; paths are absolute.
        tokens: the only training dataset.
        documents: half-open range of the documents that training reads.
        iterations: optimizer steps.
        batch_tokens: tokens of a step.
        seconds: that it took, with its start; None where its record does not say.
    """

    folder: Path
    keys: Mapping[str, Any]
    tokens: TokenDataset
    documents: tuple[int, int]
    iterations: int
    batch_tokens: int
    seconds: float | None

    @property
    def model(self) -> Path:
        """The Hugging Face folder of its last iteration."""
        return self.folder / "hf"

    @property
    def seed(self) -> int:
        return int(self.keys["seed"])

    @property
    def places(self) -> tuple[int, int]:
        """Half-open range of the flat places of the tokens that training reads."""
        first, last = self.documents
        return int(self.tokens.starts[first]), int(self.tokens.starts[last])

    @property
    def epochs(self) -> float:
        """How often training reads each token."""
        begin, end = self.places
        return self.iterations * self.batch_tokens / max(end - begin, 1)

    def keys_of(self, save: Path, mask: str | None, seed: int) -> dict[str, Any]:
        """The configuration of a retraining: this run's, but for a seed and for the tokens of ``mask``, which stay in
        the text and leave the loss (λ = 0 in (M4)).

        Args:
            mask: prefix of the tokens to drop; None for none.
        """
        keys = {**self.keys, "seed": seed, "save": str(save), "checkpoint_factor": _ONLY_SAVE, "eval_iters": 0}
        if mask is not None:
            if "data_path" in keys:
                keys["penalty_data_path"] = mask
            else:
                keys["train_penalty_data_paths"] = [mask]
            keys["penalty_lambda"] = 0.0
        return keys


def open_run(folder: str | Path) -> FinishedRun:
    """Read the run that was saved into ``folder``, and check that it can be trained again.

    Raises:
        InputError: no finished run of the embedded engine lies there, or one that cannot be repeated by itself.
        ConfigError: files that its configuration names are gone, one line each.
        MismatchError: its data has changed since.
    """
    folder = Path(folder).absolute()
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(
            f"--run {folder}: holds no run.json; name the folder that a training run saved into (its key save)"
        )
    record = read_json(path, "run record")
    faults = list(_faults(folder, record))
    if faults:
        raise ConfigError(f"--run {folder}: {fault}" for fault in faults)
    keys = _absolute(record["config"], Path(record.get("folder") or folder))
    settings = _settled(folder, keys)
    prefix = settings.paths["train"][0]
    tokens = TokenDataset.open(prefix)
    _require_same_data(folder, record, tokens)
    return FinishedRun(
        folder,
        {key: value for key, value in keys.items() if key not in _LEFT_OUT or (key == "load" and keys.get("finetune"))},
        tokens,
        _training_documents(tokens, settings.shares),
        int(record["train_iters"]),
        settings.batch * settings.seq_length,
        _seconds(record),
    )


def _faults(folder: Path, record: Any) -> list[str]:
    """Why the run cannot be repeated."""
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        return ["its run.json is no record of a training run"]
    if record.get("engine") != "embedded":
        return [
            "was trained by another engine than the embedded one, which alone trains again here; train a proxy of it "
            "with deepy.py --engine embedded and validate on that"
        ]
    if "training_seconds" not in record or not (folder / "hf" / "config.json").is_file():
        return ["has not finished; run its training command again"]
    keys, faults = record["config"], []
    if keys.get("penalty_data_path") or any(keys.get("train_penalty_data_paths") or []):
        faults.append("was trained with a penalty mask; validate on the run without one, whose model the scores are of")
    if (keys.get("objective") or "lm") != "lm":
        faults.append(f"objective {keys['objective']}: scores are of the loss of objective lm; validate on such a run")
    if keys.get("lora_rank"):
        faults.append("was trained with lora_rank, and scores are of whole weights; validate on a run without adapters")
    if not keys.get("data_path") and len(keys.get("train_data_paths") or []) != 1:
        count = len(keys.get("train_data_paths") or [])
        faults.append(f"reads {count} training datasets; merge them into one, as merge-masks does, and train on that")
    load, save = keys.get("load"), keys.get("save")
    if load and not keys.get("finetune") and load != save:
        faults.append(f"continues the run in {load}; only a run from its start, or with finetune, can be repeated")
    return faults


def _absolute(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The keys that are set, with paths that no longer depend on where the run was started."""
    keys = {key: value for key, value in config.items() if value is not None}
    for key in _PATHS:
        if keys.get(key):
            keys[key] = str(folder / keys[key])
    for key in _LISTS_OF_PATHS:
        if keys.get(key):
            keys[key] = [str(folder / path) for path in keys[key]]
    return keys


def _settled(folder: Path, keys: Mapping[str, Any]) -> Any:
    """
    Raises:
        ConfigError: something that the configuration names is not there any more.
    """
    from ifguide.engine.arguments import TrainConfig
    from ifguide.engine.checks import value_faults
    from ifguide.engine.settings import resolve

    config = TrainConfig(**keys)
    if faults := list(value_faults(config, True)):
        raise ConfigError(f"--run {folder}: {fault}" for fault in faults)
    return resolve(config)


def _require_same_data(folder: Path, record: Mapping[str, Any], tokens: TokenDataset) -> None:
    """
    Raises:
        MismatchError: the run was trained on other tokens than lie there now.
    """
    from ifguide.data.fingerprint import differences, fingerprint

    known = (record.get("inputs") or {}).get("tokens") or {}
    before = known.get(str(Path(tokens.prefix).absolute()))
    if before and (changed := differences(before, fingerprint(tokens))):
        raise MismatchError(f"--run {folder}: its data {tokens.prefix} has changed since ({'; '.join(changed)})")


def _training_documents(tokens: TokenDataset, shares: tuple[float, ...] | None) -> tuple[int, int]:
    """The part of a split dataset that training reads, as megatron-core cuts it."""
    if shares is None:
        return 0, tokens.num_documents
    return 0, round(shares[0] / math.fsum(shares) * tokens.num_documents)


def _seconds(record: Mapping[str, Any]) -> float | None:
    seconds = record.get("training_seconds")
    return None if seconds is None else float(seconds) + float(record.get("startup_seconds") or 0.0)
