"""The learning rate and the checkpoint iterations as closed forms of the iteration: resuming needs no state."""

from __future__ import annotations

import math

from ifguide.engine.arguments import TrainConfig


def learning_rate(config: TrainConfig, train_iters: int, iteration: int) -> float:
    """Learning rate of training iteration ``iteration`` (from 1), as NeoX's AnnealingLR gives it.

    NeoX counts finished iterations n = iteration - 1 and W = warmup * decay iterations:
    linear rise max(1, n)/W up to n = W, then the decay style, never below ``min_lr``.
    Where W < 1 NeoX would start at lr/W, above its maximum; here the maximum holds.
    """
    finished = iteration - 1
    decay_iters = decay_iterations(config, train_iters)
    warmup_iters = config.warmup * decay_iters
    if warmup_iters > 0 and finished <= warmup_iters:
        return config.lr * min(1.0, max(1, finished) / warmup_iters)
    progress = (finished - warmup_iters) / max(decay_iters - warmup_iters, 1e-9)
    if config.lr_decay_style == "linear":
        rate = config.lr * (1 - progress)
    elif config.lr_decay_style == "cosine":
        rate = config.min_lr + (config.lr - config.min_lr) / 2 * (math.cos(math.pi * min(progress, 1.0)) + 1)
    elif config.lr_decay_style == "exponential":
        rate = config.lr * math.exp(-0.693 * progress)  # NeoX's half-life: 0.693 = log 2
    else:
        rate = config.lr
    return max(rate, config.min_lr)


def decay_iterations(config: TrainConfig, train_iters: int) -> int:
    """Iterations over which the learning rate decays."""
    if config.lr_decay_iters is not None:
        return config.lr_decay_iters
    if config.lr_decay_fraction is not None:
        return max(1, math.floor(train_iters * config.lr_decay_fraction))
    return max(1, train_iters)


def saves_at(config: TrainConfig, train_iters: int, iteration: int) -> bool:
    """Whether a checkpoint is written after ``iteration`` (from 1); the last one always is."""
    if iteration == train_iters or iteration in (config.extra_save_iters or ()):
        return True
    factor = config.checkpoint_factor
    if factor is None:
        return False
    if config.checkpoint_scale == "linear":
        return iteration % int(factor) == 0
    exponent = round(math.log(iteration, factor))
    return any(int(factor**power) == iteration for power in (exponent, exponent + 1))
