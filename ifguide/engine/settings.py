"""YAML files -> `TrainSettings`: every fault of every key is found and reported at once, every number is settled."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ifguide.config.neox_keys import DERIVED, HARMLESS, NEOX_ONLY
from ifguide.config.typed import canonical, type_fault
from ifguide.config.yaml_files import merge_files, numbers_as_text
from ifguide.engine.arguments import REQUIRED, TrainConfig, batch_sizes, split_shares
from ifguide.engine.checks import value_faults
from ifguide.errors import ConfigError
from ifguide.penalties.keys import mask_pairs, values_of

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class TrainSettings:
    """A training run in concrete values: what the keys of a `TrainConfig` leave open is settled.

    A field that has the name of a key is documented there.

    Attributes:
        keys: what the YAML files say: for the run record, the architecture and the objective.
        train_iters: optimizer steps; None where ``train_epochs`` passes over the data say how many.
        world_size: processes of the run; all of them data parallel.
        batch: samples per optimizer step, over all processes: micro_batch * accumulation * world_size.
        micro_batch: samples that one process handles at once.
        accumulation: micro-batches per optimizer step and process.
        lr: highest learning rate.
        betas, eps: of Adam.
        precision: `fp32`, `bfloat16` or `fp16`.
        zero_stage: 0 to 2, as configured.
        zero, loss_scaling, bfloat16: DeepSpeed's sections zero_optimization, fp16 and bf16.
        paths: split -> prefixes of its datasets; with ``data_path`` the same one for each split.
        weights: split -> how often to draw from each of its datasets; None where nothing is said.
        shares: of the documents of data_path for training, validation, test; None with a dataset for each split.
        penalties: prefix of a training dataset -> prefix of its mask; without those that have none.
        keep_last_n_checkpoints, exit_interval: 0 where nothing is said: keep all, never exit.
    """

    keys: TrainConfig

    # model
    num_layers: int
    hidden_size: int
    seq_length: int
    make_vocab_size_divisible_by: int
    init_method: str
    output_layer_init_method: str
    init_method_std: float
    hidden_dropout: float
    attention_dropout: float

    # data
    tokenizer_type: str
    vocab_file: str | None
    merge_file: str | None
    eod_mask_loss: bool
    split: str
    paths: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, tuple[float, ...] | None]
    shares: tuple[float, ...] | None
    penalties: Mapping[str, str]

    # optimisation
    seed: int
    train_iters: int | None
    train_epochs: int
    world_size: int
    batch: int
    micro_batch: int
    accumulation: int
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    gradient_clipping: float
    lr_decay_style: str
    lr_decay_iters: int | None
    lr_decay_fraction: float | None
    min_lr: float
    warmup: float
    precision: str
    zero_stage: int
    zero: Mapping[str, Any]
    loss_scaling: Mapping[str, Any]
    bfloat16: Mapping[str, Any]

    # run
    master_port: int | None
    save: str | None
    load: str | None
    finetune: bool
    checkpoint_factor: int | float | None
    checkpoint_scale: str
    extra_save_iters: tuple[int, ...]
    keep_last_n_checkpoints: int
    log_interval: int
    eval_interval: int
    eval_iters: int
    exit_interval: int


def load_config(paths: Iterable[str | Path], check_files: bool = True) -> TrainSettings:
    """Read, merge, check and settle configuration files.

    Args:
        paths: YAML (or JSON) files; no key may appear twice.
        check_files: also check that the files which the configuration names exist.

    Raises:
        ConfigError: with every fault found, one line each.
    """
    merged, faults = merge_files([Path(path) for path in paths])
    values, key_faults = _known_values(merged)
    faults += key_faults
    config = TrainConfig(**values)
    unreadable = {_key_of(fault) for fault in key_faults}
    faults += [fault for fault in value_faults(config, check_files, values) if _key_of(fault) not in unreadable]
    if faults:
        raise ConfigError(faults)
    return resolve(config)


def resolve(config: TrainConfig) -> TrainSettings:
    """The settings of a configuration that `ifguide.engine.checks.value_faults` finds sound.

    Raises:
        ConfigError: a key without which there is nothing to settle.
    """
    missing = [f"{key}: required" for key in REQUIRED if getattr(config, key) is None]
    world_size = config.num_gpus or 1
    try:
        batch, micro_batch, accumulation = batch_sizes(
            world_size,
            config.train_batch_size,
            config.train_micro_batch_size_per_gpu,
            config.gradient_accumulation_steps,
        )
    except ValueError as error:
        raise ConfigError([*missing, f"train_batch_size: {error}"]) from None
    if missing:
        raise ConfigError(missing)
    params = (config.optimizer or {}).get("params") or {}
    first, second = params.get("betas") or (0.9, 0.999)
    zero = config.zero_optimization or {}
    settled: dict[str, Any] = {
        "keys": config,
        "paths": {split: _paths(config, split) for split in SPLITS},
        "weights": {split: _tuple(getattr(config, f"{split}_data_weights")) for split in SPLITS},
        "shares": split_shares(config.split) if config.data_path else None,
        "penalties": dict(mask_pairs(values_of(config))),
        "train_epochs": config.train_epochs or 1,
        "world_size": world_size,
        "batch": batch,
        "micro_batch": micro_batch,
        "accumulation": accumulation,
        "lr": float(params.get("lr", 0.001)),
        "betas": (first, second),
        "eps": params.get("eps") or 1e-8,
        "precision": _precision(config),
        "zero_stage": int(zero.get("stage", 0)),
        "zero": zero,
        "loss_scaling": config.fp16 or {},
        "bfloat16": config.bf16 or {},
        "extra_save_iters": tuple(config.extra_save_iters or ()),
        "keep_last_n_checkpoints": config.keep_last_n_checkpoints or 0,
        "exit_interval": config.exit_interval or 0,
    }
    as_given = [field.name for field in fields(TrainSettings) if field.name not in settled]
    return TrainSettings(**settled, **{name: getattr(config, name) for name in as_given})


def _paths(config: TrainConfig, split: str) -> tuple[str, ...]:
    return (config.data_path,) if config.data_path else tuple(getattr(config, f"{split}_data_paths") or ())


def _tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _precision(config: TrainConfig) -> str:
    """From ``precision`` or the sections that enable one."""
    if config.precision:
        return config.precision
    if (config.fp16 or {}).get("enabled"):
        return "fp16"
    return "bfloat16" if (config.bf16 or {}).get("enabled") else "fp32"


def _known_values(merged: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of `TrainConfig`'s fields that have the right type, and a fault for every other key."""
    types_of = typing.get_type_hints(TrainConfig)
    known = [field.name for field in fields(TrainConfig)]
    values: dict[str, Any] = {}
    faults: list[str] = []
    for key, value in merged.items():
        text_numbers = list(numbers_as_text(key, value))
        faults += text_numbers
        if key in types_of and key in known:
            if value is None or text_numbers:
                continue
            fault = type_fault(key, value, types_of[key])
            if fault:
                faults.append(fault)
            else:
                values[key] = canonical(value, types_of[key])
        elif key in NEOX_ONLY:
            if value not in NEOX_ONLY[key]:
                faults.append(f"{key}: the embedded engine cannot do {value!r}; the neox engine can")
        elif key == "attention_config":
            faults += _attention_faults(value)
        elif key in DERIVED:
            faults.append(f"{key}: is derived; set {DERIVED[key]} instead")
        elif key not in HARMLESS:
            near = difflib.get_close_matches(key, [*known, *NEOX_ONLY, *HARMLESS, "attention_config"], n=1, cutoff=0.6)
            faults.append(f"{key}: unknown key" + (f"; did you mean '{near[0]}'?" if near else ""))
    return values, faults


def _key_of(fault: str) -> str:
    """The top-level key that a fault is about: ``optimizer`` of "optimizer.params.lr: required"."""
    return fault.split(":")[0].split(".")[0].split("[")[0]


def _attention_faults(value: Any) -> list[str]:
    """NeoX's attention_config; `global` and `flash` are the same mathematics, the rest is not ours."""

    def kinds(item: Any) -> Iterable[str]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            for part in item:
                yield from kinds(part)

    # [["flash"], "all"]: the pattern for all layers, in place of a number of times
    other = sorted(set(kinds(value)) - {"global", "flash", "all"})
    return [f"attention_config: the embedded engine cannot do {', '.join(other)}; the neox engine can"] if other else []
