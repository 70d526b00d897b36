"""The DeepSpeed engine of a run: optimizer groups, ZeRO, precision, gradient clipping."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ifguide.engine.settings import TrainSettings
from ifguide.errors import ConfigError


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; layer norms and biases without, as NeoX groups them."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() > 1]
    vectors = [parameter for parameter in trained if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_engine(model: torch.nn.Module, settings: TrainSettings) -> Any:
    """Wrap ``model`` in a DeepSpeed engine with torch's AdamW.

    Raises:
        ConfigError: the precision does not exist on this machine's accelerator.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    precision = settings.precision
    supported = {
        "fp16": accelerator.is_fp16_supported() and accelerator.device_name() != "cpu",
        "bfloat16": accelerator.is_bf16_supported(),
    }
    if not supported.get(precision, True):
        raise ConfigError([f"precision: {precision} is not possible on {accelerator.device_name()}; use fp32"])
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=clips_itself(settings),
    )
    # its notices ("untested optimizer", "not compiled with", ...) are of no use to anybody
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=_deepspeed_config(settings), dist_init_required=False
    )
    return engine


def _deepspeed_config(settings: TrainSettings) -> dict[str, Any]:
    # DeepSpeed keeps fp32 master weights of a bfloat16 model from stage 1 on; without, small steps are lost
    stage = max(settings.zero_stage, 1) if settings.precision == "bfloat16" else settings.zero_stage
    config: dict[str, Any] = {
        "train_batch_size": settings.batch,
        "train_micro_batch_size_per_gpu": settings.micro_batch,
        "gradient_accumulation_steps": settings.accumulation,
        "zero_optimization": {**settings.zero, "stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 31,
    }
    if not clips_itself(settings):
        config["gradient_clipping"] = settings.gradient_clipping
    if settings.precision == "fp16":
        section = {key: value for key, value in settings.loss_scaling.items() if key not in ("type", "fp16")}
        config["fp16"] = {**section, "enabled": True}
    elif settings.precision == "bfloat16":
        config["bf16"] = {**settings.bfloat16, "enabled": True}
    return config


def clips_itself(settings: TrainSettings) -> bool:
    """Whether the gradient is ours to clip: DeepSpeed's plain fp32 path clips without telling the norm."""
    return settings.zero_stage == 0 and settings.precision == "fp32"
