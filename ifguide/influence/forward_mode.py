"""Scores of every token of a batch in one forward-mode pass.

    (M2)  s_t = v · ∇θ l_t = d/dε l_t(θ + εv)  at ε = 0

The tracked layers carry the tangent v: ``y = x W^T`` gives ``ẏ = ẋ W^T + x V^T``, and so on up to the last hidden
state h with tangent ḣ. The head is not tracked, so its part is closed:

    l = -log softmax(z)_y,  z = W_head h:    s = ∇_h l · ḣ = (W_head^T p - W_head[y]) · ḣ,   p = softmax(z)

which needs one tensor over the vocabulary where dual logits would need two and their products. No activations are
stored, so memory is that of a forward pass.

Shapes: B windows, T positions, N labelled positions, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ifguide.influence import attention
from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction
from ifguide.influence.low_rank import LowRank
from ifguide.influence.modules import ScoredModel

# elements of [rows, V] that the head works on at a time: near the cache on a CPU, enough to fill a GPU
_HEAD_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}


class ForwardModePass:
    """Scores along fixed directions, by forward mode."""

    def __init__(self, model: ScoredModel, directions: Sequence[Direction | dict[str, LowRank]]):
        self._model = model
        self._tangents = [
            model.split_bias({n: m.dense() if isinstance(m, LowRank) else m for n, m in direction.items()})
            for direction in directions
        ]

    def scores(self, batch: Batch) -> Tensor:
        """(M2) ``s``[K, B, T] of ``batch``, 0 where there is no label."""
        with self._model.attention(attention.NAME):
            return torch.stack([token_scores(self._model, tangents, batch) for tangents in self._tangents])

    def first_bad_layer(self, batch: Batch) -> str:
        """Where the first number of ``batch`` that is not finite appears."""
        from ifguide.influence import dry_run

        return dry_run.first_bad_layer(self._model, batch, self.scores)


@torch.no_grad()
def token_scores(model: ScoredModel, tangents: dict[str, Tensor], batch: Batch) -> Tensor:
    """(M2) ``s``[B, T] of ``batch``, 0 where there is no label.

    Args:
        model: loaded with an attention that carries tangents (`ifguide.influence.attention`).
        tangents: v, one tensor per parameter (`ScoredModel.split_bias`).
    """
    parameters = model.tracked_parameters()
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(parameters[name], tangents[name]) for name in tangents}
        hidden, tangent = forward_ad.unpack_dual(model.hidden(batch.inputs, duals))
    labelled = batch.labelled
    scores = torch.zeros(labelled.shape, dtype=hidden.dtype, device=hidden.device)
    scores[labelled] = head_scores(model, hidden[labelled], tangent[labelled], batch.labels[labelled])
    return scores


def head_scores(model: ScoredModel, hidden: Tensor, tangent: Tensor, labels: Tensor) -> Tensor:
    """``(W^T p - W[y]) · ḣ``[N] from ``hidden``[N, H], its ``tangent``[N, H] and ``labels``[N]."""
    weight = model.head.weight
    rows = max(1, _HEAD_ELEMENTS[hidden.device.type] // weight.shape[0])
    pieces = []
    for h, dh, y in zip(hidden.split(rows), tangent.split(rows), labels.split(rows)):
        probabilities = torch.softmax(model.logits(h), dim=-1)
        pieces.append(((probabilities @ weight - weight[y]) * dh).sum(dim=-1))
    return torch.cat(pieces)


@torch.no_grad()
def first_bad_layer(model: ScoredModel, tangents: dict[str, Tensor], batch: Batch) -> str:
    """The first tracked layer whose output or its tangent is not finite in this batch (for the error message)."""
    found: list[str] = []

    def watch(name: str):
        def hook(module: torch.nn.Module, inputs: tuple, output: Tensor) -> None:
            value, tangent = forward_ad.unpack_dual(output)
            finite = torch.isfinite(value).all() and (tangent is None or torch.isfinite(tangent).all())
            if not finite:
                found.append(name)

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in model.tracked.items()]
    try:
        token_scores(model, tangents, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the head"
