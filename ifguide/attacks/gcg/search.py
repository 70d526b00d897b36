"""Greedy coordinate gradient (Zou et al., arXiv 2307.15043) for one prompt and one target.

A step takes the gradient at the suffix, tries up to B suffixes that differ in one token, and goes on with the best of
them even if it is worse than where it stood. It ends when the model would say the target greedily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.attacks.gcg.candidates import Survives, random_suffix, swaps
from ifguide.attacks.gcg.loss import SuffixLoss
from ifguide.attacks.options import Gcg


@dataclass(frozen=True)
class Attempt:
    """One restart.

    Attributes:
        start, start_loss: the random suffix that it began with, and its L.
        suffix, loss: the best one: an exact one, else the lowest L ever met.
        exact: whether the model would say the target greedily after it.
        steps: that were taken.
        losses: L after each step, of the suffix that was gone on with; the first is ``start_loss``.
        tried: candidates over all steps.
    """

    start: list[int]
    start_loss: float
    suffix: list[int]
    loss: float
    exact: bool
    steps: int
    losses: list[float]
    tried: int

    def as_row(self) -> dict[str, Any]:
        return vars(self)


def attack(loss: SuffixLoss, allowed: Tensor, survives: Survives, options: Gcg, random: np.random.Generator) -> Attempt:
    """One restart from a random suffix, which ``random`` decides.

    Raises:
        InputError: no random suffix survives.
        NumericsError: a loss or gradient that is not finite.
    """
    suffix = random_suffix(allowed, options.suffix_tokens, survives, random)
    value, exact = one(loss, suffix)
    start, start_loss = suffix, value
    best, lowest, losses, tried, steps = suffix, value, [value], 0, 0
    while steps < options.steps and not exact:
        steps += 1
        gradient, _ = loss.gradient(suffix)
        candidates = swaps(gradient, suffix, allowed, options.top_k, options.width, survives, random)
        if len(candidates):
            suffix, value, exact = best_of(loss, candidates)
            tried += len(candidates)
        losses.append(value)
        if exact or value < lowest:
            best, lowest = suffix, value
    return Attempt(start, start_loss, best, lowest, exact, steps, losses, tried)


def best_of(loss: SuffixLoss, candidates: Tensor) -> tuple[list[int], float, bool]:
    """The candidate of the lowest L, of the exact ones where there are some; its L; whether it is exact."""
    losses, exact = loss.losses(candidates)
    values, exactly = losses.tolist(), exact.tolist()
    index = min(range(len(values)), key=lambda place: (not exactly[place], values[place]))
    return candidates[index].tolist(), values[index], exactly[index]


def one(loss: SuffixLoss, suffix: Sequence[int]) -> tuple[float, bool]:
    """L of one suffix, and whether it is exact."""
    losses, exact = loss.losses(torch.tensor([list(suffix)]))
    return float(losses[0]), bool(exact[0])
