"""What a configuration of well-typed values can still get wrong: ranges, combinations, missing files."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ifguide.architectures.support import require_trainable
from ifguide.config.hints import (
    TOKENIZER_FILES,
    convert_command,
    is_neox_checkpoint,
    model_hint,
    tokenizer_hint,
    with_hint,
)
from ifguide.engine.arguments import REQUIRED, TrainConfig, batch_sizes, split_shares
from ifguide.engine.tracking.trackers import tracker_faults
from ifguide.errors import ConfigError, InputError
from ifguide.objectives import keys as objective_keys
from ifguide.objectives.registry import OBJECTIVES
from ifguide.penalties.hiding import action_faults
from ifguide.penalties.keys import mask_key, mask_pairs, missing_files, penalty_faults, values_of

_AT_LEAST_ONE = (
    *REQUIRED, "num_kv_heads", "intermediate_size", "make_vocab_size_divisible_by", "rotary_emb_base",
    "train_iters", "train_epochs",
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "num_gpus", "lr_decay_iters",
    "keep_last_n_checkpoints", "log_interval", "eval_interval", "exit_interval",
)  # fmt: skip
_NOT_NEGATIVE = (
    "weight_decay", "gradient_clipping", "min_lr", "eval_iters", "init_method_std", "seed",
)  # fmt: skip
_OPTIMIZERS = ("adam", "adamw")
_OPTIMIZER_PARAMS = {"lr", "betas", "eps"}
_ZERO_NEEDS_NEOX = ("offload_optimizer", "offload_param", "cpu_offload", "zero_hpz_partition_size")


def value_faults(config: TrainConfig, check_files: bool, given: Mapping[str, Any] | None = None) -> list[str]:
    """Every fault of ``config``, one line each, in the order in which a reader meets the keys.

    Args:
        given: the keys that the files name, where that is known.
    """
    shape = [*_ranges(config), *_model(config)]
    faults = [
        *shape, *([] if shape else _architecture(config)), *_optimizer(config), *_precision(config), *_run(config),
        *_data(config), *tracker_faults(config), *penalty_faults(values_of(config), given), *_objective(config),
    ]  # fmt: skip
    if check_files:
        faults += _missing_files(config)
    return faults


def _ranges(config: TrainConfig) -> Iterator[str]:
    for key in REQUIRED:
        if getattr(config, key) is None:
            yield f"{key}: required"
    for key in _AT_LEAST_ONE:
        value = getattr(config, key)
        if value is not None and value < 1:
            yield f"{key}: must be at least 1, got {value}"
    for key in _NOT_NEGATIVE:
        value = getattr(config, key)
        if not (0 <= value < math.inf):
            yield f"{key}: must be a finite number of at least 0, got {value}"
    for key in ("hidden_dropout", "attention_dropout"):
        if not 0 <= getattr(config, key) < 1:
            yield f"{key}: must be in [0, 1), got {getattr(config, key)}"
    for key in ("warmup", "lr_decay_fraction"):
        value = getattr(config, key)
        if value is not None and not 0 <= value <= 1:
            yield f"{key}: is a share, in [0, 1]; got {value}"


def _model(config: TrainConfig) -> Iterator[str]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    if hidden and heads and heads > 0 and hidden % heads:
        yield f"hidden_size: {hidden} is not divisible by num_attention_heads {heads}"
    if config.pos_emb != "rotary":
        yield f"pos_emb: the embedded engine cannot do '{config.pos_emb}' (it has rotary); the neox engine can"
    if not 0 < config.rotary_pct <= 1:
        yield f"rotary_pct: must be in (0, 1], got {config.rotary_pct}"
    elif hidden and heads and heads > 0 and hidden % heads == 0 and int(hidden // heads * config.rotary_pct) % 2:
        yield f"rotary_pct: {config.rotary_pct} of a head of {hidden // heads} dimensions is an odd number of them"
    if config.norm == "rmsnorm" and config.hidden_dropout:
        yield "hidden_dropout: a Llama-style model (norm rmsnorm) has none; set it to 0"
    if config.seq_length and config.max_position_embeddings and config.seq_length > config.max_position_embeddings:
        yield (
            f"max_position_embeddings: {config.max_position_embeddings} is shorter than seq_length {config.seq_length}"
            "; raise it, or shorten seq_length"
        )


def _architecture(config: TrainConfig) -> list[str]:
    """Why no Hugging Face architecture is the model that ``config`` describes."""
    from ifguide.architectures.architecture import from_training_keys
    from ifguide.architectures.registry import family_of  # brings torch, which a misspelt key must not wait for

    try:
        architecture = from_training_keys(vars(config), padded_vocab_size=1)
    except ConfigError as error:
        return error.faults
    return family_of(architecture).faults(architecture)


def _optimizer(config: TrainConfig) -> Iterator[str]:
    section = config.optimizer
    if section is None:
        yield "optimizer: required, e.g. {type: Adam, params: {lr: 6.0e-4, betas: [0.9, 0.95], eps: 1.0e-8}}"
        return
    name = section.get("type", "Adam")
    if str(name).lower() not in _OPTIMIZERS:
        yield f"optimizer.type: the embedded engine cannot do {name!r} (it has Adam, AdamW); the neox engine can"
    params = section.get("params") or {}
    if not isinstance(params, dict):
        yield "optimizer.params: must be a mapping"
        return
    if "weight_decay" in params:
        yield "optimizer.params.weight_decay: set the key weight_decay instead (NeoX passes both and fails)"
    for key in sorted(set(map(str, params)) - _OPTIMIZER_PARAMS - {"weight_decay"}):
        yield f"optimizer.params.{key}: unknown; one of {', '.join(sorted(_OPTIMIZER_PARAMS))}"
    for key in ("lr", "eps"):
        value = params.get(key)
        if key == "lr" and value is None:
            yield "optimizer.params.lr: required"
        elif value is not None and not (_is_number(value) and 0 < value < math.inf):
            yield f"optimizer.params.{key}: must be a positive number, got {value!r}"
    betas = params.get("betas")
    if betas is not None and not (
        isinstance(betas, list) and len(betas) == 2 and all(_is_number(beta) and 0 <= beta < 1 for beta in betas)
    ):
        yield f"optimizer.params.betas: must be two numbers in [0, 1), got {betas!r}"
    if _is_number(params.get("lr")) and config.min_lr > params["lr"]:
        yield f"min_lr: {config.min_lr} is above optimizer.params.lr {params['lr']}"
    if config.lr_decay_iters is not None and config.lr_decay_fraction is not None:
        yield "lr_decay_fraction: set it or lr_decay_iters, not both"


def _precision(config: TrainConfig) -> Iterator[str]:
    enabled = [key for key in ("fp16", "bf16") if (getattr(config, key) or {}).get("enabled")]
    named = {"fp16": "fp16", "bf16": "bfloat16"}
    if len(enabled) > 1:
        yield "bf16: fp16 and bf16 cannot both be enabled"
    elif enabled and config.precision not in (None, named[enabled[0]]):
        yield f"precision: {config.precision} contradicts {enabled[0]}.enabled"
    section = config.zero_optimization or {}
    stage = section.get("stage", 0)
    if stage == 3:
        yield "zero_optimization.stage: the embedded engine cannot do 3 (it has 0, 1, 2); the neox engine can"
    elif not isinstance(stage, int) or isinstance(stage, bool) or stage not in (0, 1, 2):
        yield f"zero_optimization.stage: must be 0, 1 or 2, got {stage!r}"
    for key in _ZERO_NEEDS_NEOX:
        if section.get(key):
            yield f"zero_optimization.{key}: the embedded engine cannot do it; the neox engine can"


def _run(config: TrainConfig) -> Iterator[str]:
    if config.objective not in OBJECTIVES:
        near = difflib.get_close_matches(config.objective, OBJECTIVES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(OBJECTIVES)}"
        yield f"objective: {config.objective!r} is not known; {hint}"
    if (config.train_iters is None) == (config.train_epochs is None):
        yield "train_iters: set exactly one of train_iters and train_epochs"
    sizes = (config.train_batch_size, config.train_micro_batch_size_per_gpu, config.gradient_accumulation_steps)
    if all(size is None or size > 0 for size in sizes) and (config.num_gpus or 1) > 0:
        try:
            batch_sizes(config.num_gpus or 1, *sizes)
        except ValueError as error:
            yield f"train_batch_size: {error}"
    if config.save and config.checkpoint_factor is None and not config.extra_save_iters:
        yield "checkpoint_factor: required with save (or extra_save_iters)"
    factor = config.checkpoint_factor
    if factor is not None and config.checkpoint_scale == "log" and factor <= 1:
        yield f"checkpoint_factor: must be above 1 with checkpoint_scale log, got {factor}"
    if factor is not None and config.checkpoint_scale == "linear" and (factor < 1 or factor != int(factor)):
        yield f"checkpoint_factor: must be a whole number of iterations with checkpoint_scale linear, got {factor}"
    if config.finetune and not config.load:
        yield "finetune: needs load, the folder of the weights to start from"


def _objective(config: TrainConfig) -> Iterator[str]:
    if config.objective in OBJECTIVES:
        yield from objective_keys.objective_faults(config, masked=bool(mask_pairs(values_of(config))))


def _data(config: TrainConfig) -> Iterator[str]:
    listed = {name: getattr(config, f"{name}_data_paths") for name in ("train", "valid", "test")}
    if config.data_path and any(listed.values()):
        yield "data_path: set it or train/valid/test_data_paths, not both"
    elif not config.data_path and not any(listed.values()):
        yield "data_path: set it, or train_data_paths, valid_data_paths and test_data_paths"
    elif not config.data_path:
        for name, paths in listed.items():
            if not paths:
                yield f"{name}_data_paths: required, as train, valid and test paths go together"
    for name, paths in listed.items():
        weights = getattr(config, f"{name}_data_weights")
        if weights is None:
            continue
        if len(weights) != len(paths or []):
            yield f"{name}_data_weights: {len(weights)} weights for {len(paths or [])} {name}_data_paths"
        if any(not 0 < weight < math.inf for weight in weights):
            yield f"{name}_data_weights: every weight must be a positive number"
    if config.train_epochs and len(set(config.train_data_weights or [1.0])) > 1:
        yield "train_epochs: with unequal train_data_weights an epoch has no length; set train_iters"
    if config.data_path and not _split_is_valid(config.split):
        yield f"split: must be up to three shares of at least 0, the first above 0; got '{config.split}'"
    if not config.vocab_file and config.tokenizer_type != "CharLevelTokenizer":
        yield f"vocab_file: required by {config.tokenizer_type}"
    if not config.merge_file and config.tokenizer_type == "GPT2BPETokenizer":
        yield "merge_file: required by GPT2BPETokenizer"


def _split_is_valid(split: str) -> bool:
    try:
        shares = split_shares(split)
    except ValueError:
        return False
    return 1 <= len(shares) <= 3 and shares[0] > 0 and all(0 <= share < math.inf for share in shares)


def _missing_files(config: TrainConfig) -> Iterator[str]:
    datasets = [("data_path", [config.data_path] if config.data_path else [])]
    datasets += [
        (key, getattr(config, key) or []) for key in ("train_data_paths", "valid_data_paths", "test_data_paths")
    ]
    for key, prefixes in datasets:
        for prefix in prefixes:
            yield from missing_files(key, prefix)
    for _, mask in mask_pairs(values_of(config)):
        yield from missing_files(mask_key(values_of(config)), mask, mask=True)
    yield from action_faults(vars(config))
    yield from objective_keys.missing_files(config)
    for key in ("vocab_file", "merge_file"):
        path = getattr(config, key)
        if path and not Path(path).is_file():
            names = TOKENIZER_FILES.get(config.tokenizer_type, {}).get(key)
            yield with_hint(
                f"{key}: {path} does not exist or is not a file", tokenizer_hint(path, names) if names else ""
            )
    if config.load and config.finetune and not Path(config.load).is_dir():
        yield with_hint(f"load: {config.load} is not a folder", model_hint(config.load))
    if config.load and config.finetune and (Path(config.load) / "config.json").is_file():
        try:
            require_trainable(config.load)
        except InputError as error:
            yield f"load: {error}"
    if config.load and is_neox_checkpoint(config.load):
        yield (
            f"load: {config.load} is a GPT-NeoX checkpoint; the neox engine continues it, and the embedded one "
            f"fine-tunes what this makes: {convert_command(config.load)}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
