"""Direct preference optimisation (arXiv 2305.18290).

    L = mean over pairs of -log σ(β [(l(c) - l_r(c)) - (l(j) - l_r(j))])

l(y) = Σ_t log p(y_t | EOD, prompt, y_<t), summed, not averaged; c the chosen, j the rejected continuation; r the
frozen reference. At θ = r the loss is log 2 and its gradient -β/2 ∇(l(c) - l(j)).

Shapes: B pairs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ifguide.objectives.base import ONCE, Batch, Objective, Run
from ifguide.objectives.pairwise import outputs_of, pairs_of, sequence_log_probs


def dpo_losses(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """The loss of each pair, [B].

    Args:
        chosen, rejected: [B], log-probability of the continuation by the model minus that by the reference.
    """
    return -F.logsigmoid(beta * (chosen - rejected))


class DPO(Objective):
    """Logs ``objective``, ``reward_accuracy`` (share of pairs whose chosen text gained more) and ``reward_margin``."""

    name = "dpo"
    num_sums = 4
    reads_pairs = True
    reference_use = ONCE

    def __init__(self, beta: float):
        self._beta = beta
        self._log_probs = torch.zeros(0, 2)

    def start(self, run: Run) -> None:
        assert run.log_probs is not None
        self._log_probs = run.log_probs.to(run.device)

    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        pairs = pairs_of(batch)
        logits = outputs_of(model, pairs.tokens).logits
        ours = torch.stack(sequence_log_probs(logits, pairs.tokens, pairs.counts).chunk(2), dim=1)  # [B, 2]
        chosen, rejected = (ours - self._log_probs[pairs.numbers]).unbind(1)
        losses = dpo_losses(chosen, rejected, self._beta)
        margin = self._beta * (chosen - rejected).detach()
        sums = torch.stack([losses.detach().sum(), margin.sum(), (margin > 0).sum(), torch.ones_like(margin).sum()])
        return losses.mean(), sums.double()

    def report(self, sums: Tensor) -> dict[str, float]:
        loss, margin, right, count = sums.tolist()
        count = max(count, 1.0)
        return {"objective": loss / count, "reward_accuracy": right / count, "reward_margin": margin / count}
