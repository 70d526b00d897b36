"""Scores of every token of a batch in one forward-mode pass.

    (M2)  s_t = v · ∇θ l_t = d/dε l_t(θ + εv)  at ε = 0

The tracked layers carry the tangent v, and what is between them is torch's own forward mode, up to the last hidden
state h; the head is not tracked and its derivative is known (`head`):

    y = x W^T + b:    ẏ = ẋ W^T + x V^T + v_b,        s = ∇_h l · ḣ

So a dense v costs three products where a plain forward pass has one. With V = A B^T of low rank, ``x V^T = (x B) A^T``
and V is never built: little more than two. Nothing is stored for a backward pass, memory is that of a forward pass.

Several directions are a `torch.vmap` over their tangents: what does not depend on v is computed once for all of them.

Shapes: K directions, B windows, T positions, H hidden; of a layer O outputs, I inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from ifguide.influence.batches import Batch, in_pieces
from ifguide.influence.direction import Direction
from ifguide.influence.head import loss_gradient
from ifguide.influence.passes import checks
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.tensors import moved
from ifguide.models import attention
from ifguide.models.replaced import replaced_forward
from ifguide.models.tracked import ScoredModel

Maps = list[list[Tensor]]
"""``x V^T + v_b`` as linear maps, one after the other, each a weight and where there is one a bias: ``[[V, v_b]]``,
or with low rank ``[[B^T, its bias row], [A]]``."""


class ForwardModePass:
    """Forward-mode scores along fixed directions. Holds the directions, in the model's precision.

    A model in bfloat16 runs in bfloat16 up to the last hidden state; its head, and so the scores, are in float32.

    Args:
        directions: a matrix for each tracked layer (a layer without one stands still), of the same kind in each.
    """

    def __init__(self, model: ScoredModel, directions: Sequence[Direction | dict[str, LowRank]]):
        self._model = model
        self._maps = {
            name: _stack([_maps(model, name, direction[name]) for direction in directions]) for name in directions[0]
        }
        self._count = len(directions)

    @in_pieces
    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """(M2) ``s``[K, B, T] of ``batch``, 0 where there is no label."""
        if self._count == 1:
            hidden, tangent = self._propagate(batch.inputs, self._along(0))
            tangents = tangent[None]
        else:
            # an h that depended on the direction would be refused here
            propagate = torch.vmap(self._propagate, in_dims=(None, 0), out_dims=(None, 0))  # type: ignore[arg-type]
            hidden, tangents = propagate(batch.inputs, self._maps)
        labelled = batch.labelled
        gradient = loss_gradient(self._model, hidden[labelled], batch.labels[labelled])
        result = torch.zeros(tangents.shape[:3], dtype=gradient.dtype, device=gradient.device)
        result[:, labelled] = torch.linalg.vecdot(gradient, tangents[:, labelled].to(gradient.dtype))
        return result

    @torch.no_grad()
    def first_bad_layer(self, batch: Batch) -> str:
        """Where the first number of ``batch`` that is not finite appears."""
        found = ""
        for k in range(self._count):
            # one direction at a time: inside a vmap nothing may look at the numbers
            run = partial(self._propagate, maps=self._along(k))
            found = checks.first_bad_layer(self._model, batch, lambda batch: run(batch.inputs))  # noqa: B023
            if found in self._model.tracked:
                break
        return found

    def _along(self, k: int) -> dict[str, Maps]:
        """The maps of direction k alone."""
        return {name: [[tensor[k] for tensor in pair] for pair in maps] for name, maps in self._maps.items()}

    def _propagate(self, inputs: Tensor, maps: dict[str, Maps]) -> tuple[Tensor, Tensor]:
        """The last hidden states [B, T, H] of ``inputs``[B, T] and their tangent."""
        rules = [(layer, _rule(layer, maps[name])) for name, layer in self._model.tracked.items() if name in maps]
        # the tangents begin in the layers; this one only opens the level at which they live
        zero = torch.zeros((), device=inputs.device)
        with replaced_forward(rules), self._model.attention(attention.NAME):
            hidden, tangent, *_ = torch.func.jvp(lambda _: self._model.hidden(inputs), (zero,), (zero,))
        return hidden, tangent


def _maps(model: ScoredModel, name: str, matrix: Tensor | LowRank) -> Maps:
    """``matrix``[O, I] of layer ``name`` as the pass applies it."""

    device = model.tracked[name].weight.device

    def split(combined: Tensor) -> list[Tensor]:
        combined = moved(combined, device, model.dtype)
        if model.tracked[name].bias is None:
            return [combined.contiguous()]
        return [combined[:, :-1].contiguous(), combined[:, -1].contiguous()]

    if isinstance(matrix, LowRank):
        return [split(matrix.right.T), [moved(matrix.left, device, model.dtype)]]
    return [split(matrix)]


def _stack(each: list[Maps]) -> Maps:
    """The maps of several directions with a first dimension K."""
    return [[torch.stack(tensors) for tensors in zip(*pairs, strict=True)] for pairs in zip(*each, strict=True)]


def _rule(layer: nn.Linear, maps: Maps) -> Callable[[Tensor], Tensor]:
    """A forward function for ``layer`` whose output carries the tangent of its input and of its weights."""

    def forward(x: Tensor) -> Tensor:
        primal, moved = forward_ad.unpack_dual(x)
        tangent = primal
        for pair in maps:
            tangent = functional.linear(tangent, *pair)
        if moved is not None:
            tangent.add_(functional.linear(moved, layer.weight))
        return forward_ad.make_dual(functional.linear(primal, layer.weight, layer.bias), tangent)

    return forward
