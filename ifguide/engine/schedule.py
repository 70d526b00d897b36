"""The learning rate and the checkpoint iterations as closed forms of the iteration: resuming needs no state."""

from __future__ import annotations

import math

from ifguide.engine.settings import TrainSettings


def learning_rate(settings: TrainSettings, train_iters: int, iteration: int) -> float:
    """Learning rate of training iteration ``iteration`` (from 1), as NeoX's AnnealingLR gives it.

    NeoX counts finished iterations n = iteration - 1 and W = warmup * decay iterations:
    linear rise max(1, n)/W up to n = W, then the decay style, never below ``min_lr``.
    Where W < 1 NeoX would start at lr/W, above its maximum; here the maximum holds.
    """
    finished = iteration - 1
    decay_iters = decay_iterations(settings, train_iters)
    warmup_iters = settings.warmup * decay_iters
    if warmup_iters > 0 and finished <= warmup_iters:
        return settings.lr * min(1.0, max(1, finished) / warmup_iters)
    progress = (finished - warmup_iters) / max(decay_iters - warmup_iters, 1e-9)
    if settings.lr_decay_style == "linear":
        rate = settings.lr * (1 - progress)
    elif settings.lr_decay_style == "cosine":
        rate = settings.min_lr + (settings.lr - settings.min_lr) / 2 * (math.cos(math.pi * min(progress, 1.0)) + 1)
    elif settings.lr_decay_style == "exponential":
        rate = settings.lr * math.exp(-0.693 * progress)  # NeoX's half-life: 0.693 = log 2
    else:
        rate = settings.lr
    return max(rate, settings.min_lr)


def decay_iterations(settings: TrainSettings, train_iters: int) -> int:
    """Iterations over which the learning rate decays."""
    if settings.lr_decay_iters is not None:
        return settings.lr_decay_iters
    if settings.lr_decay_fraction is not None:
        return max(1, math.floor(train_iters * settings.lr_decay_fraction))
    return max(1, train_iters)


def saves_at(settings: TrainSettings, train_iters: int, iteration: int) -> bool:
    """Whether a checkpoint is written after ``iteration`` (from 1); the last one always is."""
    if iteration == train_iters or iteration in settings.extra_save_iters:
        return True
    factor = settings.checkpoint_factor
    if factor is None:
        return False
    if settings.checkpoint_scale == "linear":
        return iteration % int(factor) == 0
    exponent = round(math.log(iteration, factor))
    return any(int(factor**power) == iteration for power in (exponent, exponent + 1))
