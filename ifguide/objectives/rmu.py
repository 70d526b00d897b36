"""Representation misdirection for unlearning (arXiv 2403.03218).

    L = mean |h_l(j) - c u|² / H + α · mean |h_l(retain) - h_l,r(retain)|² / H

h_l is the raw output of block l, the means run over the tokens of continuations, u is a fixed random vector of unit
length in the positive orthant, c its length in use, r the frozen reference. At θ = r the retain term is 0, and so is
its gradient. The published code averages over padding too; here padding counts nowhere.

Shapes: R rows, P tokens, H width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ifguide.objectives.base import EACH_STEP, Batch, Objective, Run
from ifguide.objectives.pairwise import outputs_of, pairs_of, whole_counts

TEXT, DOWN = "text", "down"
# the MLP's output matrix in each architecture that is trained
_DOWN = re.compile(r"\blayers\.(\d+)\.mlp\.(?:dense_4h_to_h|down_proj)\.weight$")
_BLOCKS_TRAINED = 3


def steering_vector(width: int, seed: int) -> Tensor:
    """u: float32[H], uniform in [0, 1) and then of unit length."""
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def squared_distances(hidden: Tensor, target: Tensor) -> Tensor:
    """``|h - target|² / H`` of each row of hidden[n, H]: [n], at least in float32."""
    return (_wide(hidden) - _wide(target)).square().mean(-1)


class RMU(Objective):
    """Logs ``objective``, ``forget`` and ``retain``, the two means before α."""

    name = "rmu"
    num_sums = 4
    reads_pairs = True
    reference_use = EACH_STEP

    def __init__(self, layer: int, coefficient: float | None, alpha: float, retain_data: str, trains: str):
        """
        Args:
            layer: l, from 1.
            coefficient: c; None: the mean length of h_l,r over the rejected tokens of the first iteration.
        """
        self._layer, self._coefficient, self._alpha = layer, coefficient, alpha
        self._on_text, self._only_down = retain_data == TEXT, trains == DOWN
        self._counts = (1.0, 1.0)

    def trains(self, parameter: str, num_layers: int) -> bool:
        if not self._only_down:
            return True
        found = _DOWN.search(parameter)
        return found is not None and self._layer - _BLOCKS_TRAINED <= int(found[1]) < self._layer

    def start(self, run: Run) -> None:
        assert run.reference is not None
        self._run, self._reference = run, run.reference
        self._direction = steering_vector(run.hidden_size, run.seed).to(run.device)

    def state(self) -> dict[str, Any]:
        return {"coefficient": self._coefficient}

    def restore(self, state: dict[str, Any]) -> None:
        self._coefficient = state["coefficient"]

    def begin(self, batches: Sequence[Batch], iteration: int) -> None:
        """Count the tokens of the whole step, and settle c at the first."""
        forget = retain = norms = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            pairs, half = pairs_of(batch), len(pairs_of(batch).numbers)
            forget = forget + pairs.counts[half:].sum()
            retain = retain + (batch.text.tokens.numel() if self._on_text else pairs.counts[:half].sum())
            if self._coefficient is None:
                hidden = self._reference.outputs(pairs.tokens[half:], self._layer).hidden
                assert hidden is not None
                norms = norms + hidden[pairs.counts[half:]].double().norm(dim=-1).sum()
        rejected, kept, length = whole_counts([forget, retain, norms], self._run.device)
        self._counts = (max(rejected, 1.0), max(kept, 1.0))
        if self._coefficient is None:
            self._coefficient = length / max(rejected, 1.0)

    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        # each kind of text in a pass of its own: the reference's has the model's shapes, so that at θ = r the two are
        # equal to the bit
        chosen, rejected = pairs_of(batch).tokens.chunk(2)
        kept_counts, counts = pairs_of(batch).counts.chunk(2)
        hidden = _hidden(outputs_of(model, rejected, self._layer))[counts]
        assert self._coefficient is not None, "`begin` settles it"
        forget = squared_distances(hidden, self._direction * self._coefficient).sum()
        kept = batch.text.tokens if self._on_text else chosen
        where = torch.ones_like(kept, dtype=torch.bool) if self._on_text else kept_counts
        ours, theirs = _hidden(outputs_of(model, kept, self._layer)), self._reference_hidden(kept)
        retain = squared_distances(ours[where], theirs[where]).sum()
        shares = [self._run.micro_batches / count for count in self._counts]
        loss = forget * shares[0] + self._alpha * retain * shares[1]
        sums = [forget.detach(), counts.sum(), retain.detach(), where.sum()]
        return loss, torch.stack([value.double() for value in sums])

    def report(self, sums: Tensor) -> dict[str, float]:
        forget, rejected, retain, kept = sums.tolist()
        forget, retain = forget / max(rejected, 1.0), retain / max(kept, 1.0)
        return {"objective": forget + self._alpha * retain, "forget": forget, "retain": retain}

    def _reference_hidden(self, tokens: Tensor) -> Tensor:
        return _hidden(self._reference.outputs(tokens, self._layer))


def _hidden(outputs: Any) -> Tensor:
    assert outputs.hidden is not None
    return outputs.hidden


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
