"""Scores by position: the influence that flows through each position, from all later loss terms.

    s_t = Σ_layers g_t^T V a_t,    a_t the layer's input (and 1 where it has a bias), g_t = ∂(Σ_u l_u)/∂(its output)

This is what kronfluence calls per-token scores. Position t predicts label t of a batch, so its score is reported
there. Summed over a sequence it equals (M2). In a causal model the loss at u reaches positions t <= u alone. So the
losses of a window's context, which has no labels, would reach none of the positions reported: they are left out.

One forward and one backward pass serve all directions; the weights get no gradient. Each layer splits its product
``V = L R^T`` where it is narrowest: ``R^T a`` is kept from the forward pass, ``g L`` meets it on the way back.

Shapes: K directions, B windows, T positions, O outputs and I inputs of a layer, M kept numbers, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ifguide.errors import ConfigError
from ifguide.influence.batches import Batch, in_backward_pieces
from ifguide.influence.direction import Direction
from ifguide.influence.head import loss_gradient
from ifguide.influence.passes import checks
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.tensors import moved
from ifguide.models.tracked import ScoredModel


class PositionPass:
    """Position scores along fixed directions.

    Holds the directions. A batch needs the activations of a training step (no gradients or optimizer states of
    weights), and at each position of each layer the smaller of I and K·O numbers, or K·R.

    Raises:
        ConfigError: on the first batch, where tracked layers do not see their inputs as [B, T, I]; lists them.
    """

    def __init__(self, model: ScoredModel, directions: Sequence[Direction | dict[str, LowRank]]):
        self._model = model
        self._count = len(directions)
        self._products = {
            name: _make_product(model, name, [direction[name] for direction in directions])
            for name in model.tracked
            if name in directions[0]
        }

    @in_backward_pieces
    def scores(self, batch: Batch) -> Tensor:
        """``s``[K, B, T] of ``batch``, 0 where there is no label."""
        model, labelled = self._model, batch.labelled
        dtype = torch.promote_types(model.dtype, torch.float32)
        result = torch.zeros(self._count, *labelled.shape, dtype=dtype, device=model.device)
        watch = _Watch(result)
        hooks = [model.tracked[name].register_forward_hook(watch.hook(name, p)) for name, p in self._products.items()]
        try:
            with model.attention("sdpa"), torch.enable_grad():
                hidden = model.hidden(batch.inputs)
        finally:
            for hook in hooks:
                hook.remove()
        if watch.flattened:
            raise ConfigError(watch.flattened)
        gradient = torch.zeros_like(hidden)
        gradient[labelled] = loss_gradient(model, hidden.detach()[labelled], batch.labels[labelled]).to(hidden.dtype)
        torch.autograd.grad(hidden, watch.leaves, gradient, allow_unused=True)
        return result.mul_(labelled)

    def first_bad_layer(self, batch: Batch) -> str:
        """Where the first number of ``batch`` that is not finite appears."""
        return checks.first_bad_layer(self._model, batch, self.scores)


class _Watch:
    """Keeps what each layer needs during the forward pass, and adds to the scores during the backward pass.

    Attributes:
        leaves: the outputs at which the graph begins; the weights before them are not part of it.
        flattened: a fault for each layer whose inputs are not [B, T, I].
    """

    def __init__(self, scores: Tensor):
        self.leaves: list[Tensor] = []
        self.flattened: list[str] = []
        self._scores = scores

    def hook(self, name: str, product: _Product) -> Callable[[nn.Module, tuple, Tensor], None]:
        def forward(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            taken = inputs[0].detach()
            if tuple(taken.shape[:-1]) != tuple(self._scores.shape[1:]):
                self.flattened.append(
                    f"layer {name} takes inputs {list(taken.shape)}, not [batch, tokens, features]: position scores "
                    "need the tokens in their places; leave it out with --modules when fitting, or score by loss-term"
                )
                return
            kept = product.keep(taken)
            if not output.requires_grad:
                self.leaves.append(output.requires_grad_())
            output.register_hook(lambda gradient: product.add(scores, gradient.detach(), kept))

        # a hook that knew of this object would know of the outputs, in a circle that keeps a whole graph of a pass
        # until the interpreter looks for circles
        scores = self._scores
        return forward


class _Product:
    """``g^T V a`` of one layer for all directions."""

    def keep(self, inputs: Tensor) -> Tensor:
        """What is needed of ``inputs``[B, T, I] on the way back."""
        raise NotImplementedError

    def add(self, scores: Tensor, gradient: Tensor, kept: Tensor) -> None:
        """Add to ``scores``[K, B, T] from ``gradient``[B, T, O] of the output and from what was kept."""
        raise NotImplementedError


class _KeepInputs(_Product):
    """Keeps a itself: ``(g V) · a``. V[K, O, I(+1)]."""

    def __init__(self, matrices: Tensor):
        self._matrices = matrices

    def keep(self, inputs: Tensor) -> Tensor:
        return inputs

    def add(self, scores: Tensor, gradient: Tensor, kept: Tensor) -> None:
        width = kept.shape[-1]
        for out, matrix in zip(scores, self._matrices, strict=True):
            moved = gradient @ matrix
            out += torch.linalg.vecdot(moved[..., :width], kept)
            if matrix.shape[1] > width:
                out += moved[..., width]


class _KeepProducts(_Product):
    """Keeps ``R^T a``[K, B, T, M]: ``g · (V a)`` with M = O where there is no L[K, O, M], else ``(g L) · (R^T a)``."""

    def __init__(self, left: Tensor | None, right: Tensor, bias: bool):
        """``right``[K, I(+1), M]; its last row belongs to the 1 where there is a ``bias``."""
        self._left = left
        self._right = right[:, :-1] if bias else right
        self._constant = right[:, -1] if bias else None

    def keep(self, inputs: Tensor) -> Tensor:
        # one direction at a time: a product of both at once would copy the right side for each sequence
        kept = inputs.new_empty(len(self._right), *inputs.shape[:-1], self._right.shape[-1])
        for out, right in zip(kept, self._right, strict=True):
            out.copy_(inputs @ right)
        return kept if self._constant is None else kept.add_(self._constant[:, None, None])

    def add(self, scores: Tensor, gradient: Tensor, kept: Tensor) -> None:
        for k, out in enumerate(scores):
            out += torch.linalg.vecdot(gradient if self._left is None else gradient @ self._left[k], kept[k])


def _make_product(model: ScoredModel, name: str, matrices: list[Tensor | LowRank]) -> _Product:
    """The cheapest way for the directions' ``matrices`` of layer ``name``."""
    layer = model.tracked[name]
    bias = layer.bias is not None

    def stack(tensors: list[Tensor]) -> Tensor:
        return torch.stack([moved(tensor, model.device, model.dtype) for tensor in tensors])

    low = [matrix for matrix in matrices if isinstance(matrix, LowRank)]
    if low:
        return _KeepProducts(stack([m.left for m in low]), stack([m.right for m in low]), bias)
    dense = stack([matrix for matrix in matrices if isinstance(matrix, Tensor)])
    if len(matrices) * layer.out_features < layer.in_features:
        return _KeepProducts(None, dense.transpose(1, 2), bias)
    return _KeepInputs(dense)
