"""Negative preference optimisation (arXiv 2404.05868): unlearning that slows down as it succeeds.

    L = mean over pairs of -(2/β) log σ(-β [l(j) - l_r(j)]) + w · mean over retain tokens of CE

l(j) is the summed log-probability of the rejected continuation, r the frozen reference, w ``npo_retain``. Retain data
are the chosen continuations or packed text. At θ = r the first term is (2/β) log 2 and its gradient ∇l(j).

Shapes: B pairs, P tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ifguide.objectives.base import ONCE, Batch, Objective, Run
from ifguide.objectives.cross_entropy import token_losses
from ifguide.objectives.pairwise import counted_losses, outputs_of, pairs_of, sequence_log_probs, whole_counts

TEXT = "text"


def npo_losses(rejected: Tensor, beta: float) -> Tensor:
    """The forget term of each pair, [B].

    Args:
        rejected: [B], log-probability of the continuation by the model minus that by the reference.
    """
    return -2 / beta * F.logsigmoid(-beta * rejected)


class NPO(Objective):
    """Logs ``objective``, ``forget`` and ``retain``, the mean cross-entropy of retain tokens."""

    name = "npo"
    num_sums = 4
    reads_pairs = True
    reference_use = ONCE

    def __init__(self, beta: float, retain: float, retain_data: str):
        self._beta, self._retain, self._on_text = beta, retain, retain_data == TEXT
        self._log_probs = torch.zeros(0, 2)
        self._micro_batches, self._count = 1, 1.0
        self._device: Any = "cpu"

    def start(self, run: Run) -> None:
        assert run.log_probs is not None
        self._log_probs = run.log_probs.to(run.device)
        self._micro_batches, self._device = run.micro_batches, run.device

    def begin(self, batches: Sequence[Batch], iteration: int) -> None:
        """Count the retain tokens of the whole step: a long text then weighs the same in every micro-batch."""
        own = sum((_retain_mask(batch, self._on_text).sum() for batch in batches), torch.zeros(()))
        self._count = max(whole_counts([own], self._device)[0], 1.0)

    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        pairs = pairs_of(batch)
        half = len(pairs.numbers)
        both = bool(self._retain) and not self._on_text
        rows = slice(0 if both else half, None)
        tokens, counts = pairs.tokens[rows], pairs.counts[rows]
        logits = outputs_of(model, tokens).logits
        ours = sequence_log_probs(logits[-half:], tokens[-half:], counts[-half:])
        forget = npo_losses(ours - self._log_probs[pairs.numbers, 1], self._beta)
        loss, retain = forget.mean(), torch.zeros_like(forget.sum())
        if self._retain:
            if both:
                retain = counted_losses(logits[:half], tokens[:half], counts[:half]).sum()
            else:
                retain = (token_losses(model, batch.text) * batch.text.loss_mask).sum()
            loss = loss + self._retain * retain * (self._micro_batches / self._count)
        retained = _retain_mask(batch, self._on_text).sum() * bool(self._retain)
        sums = torch.stack([forget.detach().sum(), torch.ones_like(forget).sum(), retain.detach(), retained])
        return loss, sums.double()

    def report(self, sums: Tensor) -> dict[str, float]:
        forget, pairs, retain, tokens = sums.tolist()
        forget, retain = forget / max(pairs, 1.0), retain / max(tokens, 1.0)
        report = {"objective": forget + self._retain * retain, "forget": forget}
        return report | ({"retain": retain} if self._retain else {})


def _retain_mask(batch: Batch, on_text: bool) -> Tensor:
    """Whether each token belongs to the retain data."""
    if on_text:
        return batch.text.loss_mask
    pairs = pairs_of(batch)
    return pairs.counts[: len(pairs.numbers)]
