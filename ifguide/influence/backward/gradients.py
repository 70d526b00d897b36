"""Gradients of the tracked layers that leave the device layer by layer.

An ordinary backward pass over a batch of sequences, in which

- the layers' own parameters take the gradients, so there is no copy of a weight,
- each gradient is handed on and freed as soon as it is there, so the device never holds two layers of them,
- a block keeps its input alone and is run again on the way back: a third more work for the activations of one block in
  place of all, which above a billion parameters would be more than the weights.

Beside the weights the device holds one layer's gradient, one block's activations and the blocks' inputs.

Shapes: B sequences, T positions, H hidden, O outputs and I inputs of a layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ifguide.influence.backward.head_loss import head_loss
from ifguide.influence.batches import Batch
from ifguide.models.blocks import find_blocks
from ifguide.models.replaced import replaced_forward
from ifguide.models.tracked import ScoredModel

Take = Callable[[str, bool, Tensor], None]
"""Layer, whether it is the bias, and its gradient ([O, I], or [O] of a bias), which is freed afterwards."""


class HostGradients:
    """Sums of gradients in the host's memory, one matrix [O, I] a layer; the bias is the last column.

    Attributes:
        matrices: zeros where no loss reaches (an expert that no query was routed to).
    """

    def __init__(self, model: ScoredModel):
        self.matrices = {name: torch.zeros(model.matrix_shape(name), dtype=model.dtype) for name in model.tracked}

    def take(self, name: str, is_bias: bool, gradient: Tensor) -> None:
        """Add the gradient of a weight or of a bias."""
        matrix = self.matrices[name]
        part = matrix[:, -1] if is_bias else matrix[:, : gradient.shape[1]]
        part += gradient.to(matrix.device)


@contextlib.contextmanager
def gradients_to(model: ScoredModel, take: Take) -> Iterator[None]:
    """While entered, every backward pass hands the tracked layers' gradients to ``take`` and keeps none."""
    handles = []
    parameters = [
        (name, is_bias, parameter)
        for name, layer in model.tracked.items()
        for is_bias, parameter in ((False, layer.weight), (True, layer.bias))
        if parameter is not None
    ]
    before = [parameter.requires_grad for _, _, parameter in parameters]
    try:
        for name, is_bias, parameter in parameters:
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(_leaving(partial(take, name, is_bias))))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for (_, _, parameter), required in zip(parameters, before, strict=True):
            parameter.requires_grad_(required)
            parameter.grad = None


def _leaving(take: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        assert parameter.grad is not None
        take(parameter.grad)
        parameter.grad = None

    return hook


@contextlib.contextmanager
def blocks_run_again(model: ScoredModel) -> Iterator[None]:
    """While entered, blocks keep no activations: backward runs them again. Where no blocks are found they keep all."""
    found = find_blocks(model.model)
    rules: list[tuple[nn.Module, Callable]] = [
        # nothing is drawn in eval mode
        (block, partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False))
        for block in (found[1] if found else ())
    ]
    with replaced_forward(rules):
        yield


def batch_loss(model: ScoredModel, batch: Batch, weights: Tensor | None = None) -> Tensor:
    """``Σ_b w_b Σ_t l_bt`` of ``batch`` (on the CPU, or where the model is), with its graph.

    Args:
        weights: ``w``[B], on the CPU (None: 1 each).
    """
    # the places are found before anything is on the device, so that nobody waits for it
    places = batch.labelled.flatten().nonzero().squeeze(1)
    labels = batch.labels.flatten()[places].to(model.device)
    share = None
    if weights is not None:
        share = weights[places.cpu() // batch.labels.shape[1]].to(model.device)
    hidden = model.hidden(batch.inputs.to(model.device)).flatten(0, 1).index_select(0, places.to(model.device))
    return head_loss(model, hidden, labels, share)


def go_back(model: ScoredModel, batch: Batch, weights: Tensor | None = None) -> Tensor:
    """A backward pass from `batch_loss`, which it returns."""
    loss = batch_loss(model, batch, weights)
    loss.backward()
    return loss.detach()
