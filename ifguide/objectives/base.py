"""What training minimises, as an object: the trainer only loops, and knows no objective by name.

Shapes: B samples of a micro-batch, T tokens of a sample, S sums of an objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor


class TokenBatch(NamedTuple):
    """One micro-batch of packed text.

    Attributes:
        tokens: int64[B, T], the input.
        labels: int64[B, T], ``labels[b, t]`` follows ``tokens[b, t]``.
        loss_mask: float32[B, T], 0 where a label does not count.
        codes: uint8[B, T], penalty codes of the labels on the scale 0..255; 0 for a clean one.
    """

    tokens: Tensor
    labels: Tensor
    loss_mask: Tensor
    codes: Tensor

    def to(self, device: str | torch.device) -> TokenBatch:
        return TokenBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Objective(ABC):
    """One way to train.

    An objective is a function of model and micro-batch. What it logs are ratios of SUMS, which the trainer adds up
    over micro-batches and processes before anything is divided: uneven shares then cannot bias a number, and a batch
    that contributes nothing cannot make a NaN.

    Attributes:
        name: the value of the YAML key ``objective``.
        num_sums: S.
    """

    name: str
    num_sums: int

    @abstractmethod
    def loss(self, model: Any, batch: TokenBatch, iteration: int) -> tuple[Tensor, Tensor]:
        """The scalar that a micro-batch adds to the step, and its sums.

        Args:
            model: what maps ``input_ids`` to ``logits``: the DeepSpeed engine, or the model itself.
            iteration: of training, from 1.

        Returns:
            The loss, with its graph, and float64[S] without one, on the batch's device.
        """

    @abstractmethod
    def report(self, sums: Tensor) -> dict[str, float]:
        """The numbers of an interval, from its added sums[S]. All of them must be finite."""

    def logged(self, values: dict[str, float]) -> dict[str, float]:
        """Those of `report` that go into the log, in their order."""
        return values
