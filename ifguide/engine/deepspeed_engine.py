"""The DeepSpeed engine of a run: optimizer groups, ZeRO, precision, gradient clipping."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ifguide.engine.arguments import TrainConfig, batch_sizes
from ifguide.errors import ConfigError


def precision_of(config: TrainConfig) -> str:
    """`fp32`, `bfloat16` or `fp16`, from ``precision`` or the sections that enable one."""
    if config.precision:
        return config.precision
    if (config.fp16 or {}).get("enabled"):
        return "fp16"
    return "bfloat16" if (config.bf16 or {}).get("enabled") else "fp32"


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; layer norms and biases without, as NeoX groups them."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def build_engine(model: torch.nn.Module, config: TrainConfig) -> Any:
    """Wrap ``model`` in a DeepSpeed engine with torch's AdamW.

    Raises:
        ConfigError: the precision does not exist on this machine's accelerator.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    precision = precision_of(config)
    supported = {
        "fp16": accelerator.is_fp16_supported() and accelerator.device_name() != "cpu",
        "bfloat16": accelerator.is_bf16_supported(),
    }
    if not supported.get(precision, True):
        raise ConfigError([f"precision: {precision} is not possible on {accelerator.device_name()}; use fp32"])
    params = dict((config.optimizer or {}).get("params") or {})
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.lr,
        betas=tuple(params.get("betas", (0.9, 0.999))),
        eps=params.get("eps", 1e-8),
        fused=precision == "fp32" and config.zero_stage == 0,
    )
    # its notices ("untested optimizer", "not compiled with", ...) are of no use to anybody
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=_deepspeed_config(config, precision), dist_init_required=False
    )
    return engine


def _deepspeed_config(config: TrainConfig, precision: str) -> dict[str, Any]:
    batch, micro_batch, accumulation = batch_sizes(
        config.world_size,
        config.train_batch_size,
        config.train_micro_batch_size_per_gpu,
        config.gradient_accumulation_steps,
    )
    # DeepSpeed keeps fp32 master weights of a bfloat16 model from stage 1 on; without, small steps are lost
    stage = max(config.zero_stage, 1) if precision == "bfloat16" else config.zero_stage
    settings: dict[str, Any] = {
        "train_batch_size": batch,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "zero_optimization": {**(config.zero_optimization or {}), "stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 31,
    }
    if not clips_itself(config):
        settings["gradient_clipping"] = config.gradient_clipping
    if precision == "fp16":
        section = {key: value for key, value in (config.fp16 or {}).items() if key not in ("type", "fp16")}
        settings["fp16"] = {**section, "enabled": True}
    elif precision == "bfloat16":
        settings["bf16"] = {**(config.bf16 or {}), "enabled": True}
    return settings


def clips_itself(config: TrainConfig) -> bool:
    """Whether the gradient is ours to clip: DeepSpeed's plain fp32 path clips without telling the norm."""
    return config.zero_stage == 0 and precision_of(config) == "fp32"
