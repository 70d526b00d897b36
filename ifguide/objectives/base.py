"""What training minimises, as an object: the trainer only loops, and knows no objective by name.

Shapes: B samples (or pairs) of a micro-batch, T tokens of a sample, P tokens of the longest text of a pair, S sums of
an objective, H width of the residual stream, V padded vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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


class PairBatch(NamedTuple):
    """One micro-batch of pairs: the B chosen texts, then the B rejected ones in the same order, padded on the right.

    A causal model sees no padding behind a token, so no attention mask is needed.

    Attributes:
        tokens: int64[2B, P], prompt and continuation as one text (`TextReader.query`).
        counts: bool[2B, P], whether the token itself is one of the continuation; not of the prompt, nor padding.
        toxic: bool[2B, P], those of the rejected texts that are labelled toxic: all that count, unless the pair
            says which.
        numbers: int64[B], the place of each pair in its file.
    """

    tokens: Tensor
    counts: Tensor
    toxic: Tensor
    numbers: Tensor

    def to(self, device: str | torch.device) -> PairBatch:
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Batch(NamedTuple):
    """What one process computes a loss of at once.

    Attributes:
        text: packed text.
        pairs: where the objective reads pairs, else None.
    """

    text: TokenBatch
    pairs: PairBatch | None = None


class Outputs(NamedTuple):
    """What a model says of texts.

    Attributes:
        logits: [B, T, V].
        hidden: [B, T, H], the output of the block that was asked for; None if none was.
    """

    logits: Tensor
    hidden: Tensor | None


class Reference(Protocol):
    """The frozen model that an objective compares with. No gradient, no dropout."""

    def outputs(self, tokens: Tensor, layer: int | None = None) -> Outputs:
        """What it says of tokens[B, T]; ``layer`` from 1 asks for the output of that block."""


@dataclass(frozen=True)
class Run:
    """What an objective knows of the run before its first step.

    Attributes:
        train_iters: iterations, those of the objective's warm-up included.
        micro_batches: of one iteration, over all processes. The trainer's step is their mean.
        num_layers, hidden_size: of the model.
        device: where the model is.
        seed: of the run, for what an objective draws.
        reference: where `Objective.reference_use` is ``each step``, else None.
        log_probs: float64[N, 2] where it is ``once``, else None: what the reference gives to the N pairs' chosen and
            rejected continuations, on the processor.
        eod: the separator of documents in packed text, or None.
        log_frequency: float32[V] where the objective `reads_frequency`, else None: log of (1 + how often the training
            data has the token), on the processor.
    """

    train_iters: int
    micro_batches: int
    num_layers: int
    hidden_size: int
    device: str | torch.device
    seed: int = 0
    reference: Reference | None = None
    log_probs: Tensor | None = None
    eod: int | None = None
    log_frequency: Tensor | None = None


NEVER, ONCE, EACH_STEP = "never", "once", "each step"


class Objective(ABC):
    """One way to train.

    An objective is a function of model and micro-batch. What it logs are ratios of SUMS, which the trainer adds up
    over micro-batches and processes before anything is divided: uneven shares then cannot bias a number, and a batch
    that contributes nothing cannot make a NaN.

    Attributes:
        name: the value of the YAML key ``objective``.
        num_sums: S.
        reads_pairs: whether a batch has pairs.
        reads_frequency: whether it needs to know how often the training data has each token.
        reference_use: when it asks the reference: ``NEVER``, ``ONCE`` for the log-probabilities of all pairs before
            the first step, or ``EACH_STEP``.
        warmup_iters: first iterations in which the model takes no step and the objective's own parameters do. The
            learning rate's schedule starts after them.
    """

    name: str
    num_sums: int
    reads_pairs: bool = False
    reads_frequency: bool = False
    reference_use: str = NEVER
    warmup_iters: int = 0

    def trains(self, parameter: str, num_layers: int) -> bool:
        """Whether the model's parameter of this name is trained; asked before there is an optimizer."""
        return True

    def start(self, run: Run) -> None:  # noqa: B027 (most objectives need nothing of the run)
        """Called once, before the first iteration and before `restore`."""

    def begin(self, batches: Sequence[Batch], iteration: int) -> None:  # noqa: B027
        """Called with all micro-batches of this process before the first loss of ``iteration``, on every process:
        the place to count over the whole batch."""

    def finish(self, iteration: int) -> None:  # noqa: B027
        """Called after the last loss of ``iteration``: the place for a step of the objective's own parameters."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep beside the model; what is a function of the iteration is not state."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """The opposite of `state`."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        """The scalar that a micro-batch adds to the step, and its sums.

        In the warm-up it is called without gradients, and the scalar is not used.

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
