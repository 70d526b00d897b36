"""The cheap pass: two passes through a proxy's layers, and no vocabulary.

A small model spends its time in the head: V columns for each token, whatever its width. What a score needs of it is

    ∇_h l = W^T p(h) - W[y]:    W^T p(h) = E[W[y'] | h], the mean embedding of the next token

and a linear map ``A h + b``, fitted by least squares on a sample, stands for that mean. The label's own part ``W[y]``
is exact. The scores serve to rank documents, nothing else.

Shapes: N labelled positions, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ifguide.influence.batches import group_by_length
from ifguide.influence.direction import Direction
from ifguide.influence.head import loss_gradient
from ifguide.influence.passes.difference import DifferencePass
from ifguide.influence.windows import Cutting, Windows, sample
from ifguide.models.tracked import ScoredModel

# |εv| / |θ|: the ranking is the same for a third and for three times as much
STEP = 1e-2
_SAMPLE_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class LinearHead:
    """``∇_h l ≈ A h + b - W[y]``.

    Attributes:
        matrix: A[H, H].
        offset: b[H].
        explained: share of the variance of ``W^T p`` over the sample that ``A h + b`` explains.
    """

    matrix: Tensor
    offset: Tensor
    explained: float

    def __call__(self, model: ScoredModel, hidden: Tensor, labels: Tensor) -> Tensor:
        """``∇_h l``[N, H], in place of `loss_gradient`."""
        return torch.addmm(self.offset, hidden, self.matrix.T).sub_(model.head.weight[labels])


@torch.no_grad()
def fit_linear_head(model: ScoredModel, windows: Windows | Cutting, batch_tokens: int, seed: int = 0) -> LinearHead:
    """Fit the map on a seeded sample of ``windows``, in float64 on the processor."""
    chosen = sample(windows, max(_SAMPLE_TOKENS, 16 * model.head.weight.shape[1]), seed)
    states, means = [], []
    for group in group_by_length(chosen.lengths, batch_tokens):
        batch = chosen.batch(group).to(model.device)
        labels = batch.labels[batch.labelled]
        with model.attention("sdpa"):
            hidden = model.hidden(batch.inputs)[batch.labelled]
        states.append(hidden)
        means.append(loss_gradient(model, hidden, labels) + model.head.weight[labels])
    x, y = (torch.cat(pieces).to("cpu", torch.float64) for pieces in (states, means))
    centre_x, centre_y = x.mean(dim=0), y.mean(dim=0)
    x, y = x - centre_x, y - centre_y
    # the minimum-norm solution: a layer norm makes the hidden states' columns dependent
    matrix = torch.linalg.lstsq(x, y, driver="gelsd").solution.T
    left = float((y - x @ matrix.T).square().sum() / y.square().sum())
    offset = centre_y - matrix @ centre_x
    return LinearHead(matrix.to(model.device, model.dtype), offset.to(model.device, model.dtype), 1 - left)


def cheap_pass_on(
    model: ScoredModel, directions: Sequence[Direction], windows: Windows | Cutting, batch_tokens: int
) -> DifferencePass:
    """`cheap_pass` with a head that is fitted on a sample of ``windows``: for `influence.job.prepare`."""
    return cheap_pass(model, directions, fit_linear_head(model, windows, batch_tokens))


def cheap_pass(
    model: ScoredModel, directions: Sequence[Direction], head: LinearHead, step: float = STEP
) -> DifferencePass:
    """One-sided differences of the last hidden states, with the linear head: K + 1 passes through the layers."""
    return DifferencePass(model, directions, step, one_sided=True, gradient=head)
