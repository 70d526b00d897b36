"""Curvature of the tracked layers, fitted with kronfluence and given back in the form of `store`.

Scale (kronfluence's): covariances are means over TOKENS (padding not counted), so kfac's Λ is per token. Λ of ekfac
and diagonal is a mean over WINDOWS of the squared gradient of the window's SUMMED loss. Labels are drawn from the
model (true Fisher), one uniform number for each token.

Shapes: B windows, T positions, N labelled positions, V vocabulary, O outputs, I inputs with the bias column.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ifguide.compat import kronfluence
from ifguide.errors import NumericsError
from ifguide.influence.backward.footprint import DRAWN_ELEMENTS, fit_sizes
from ifguide.influence.backward.head_loss import head_loss
from ifguide.influence.batches import BACKWARD_TOKENS, NO_LABEL, Batch, group_by_length
from ifguide.influence.curvature.partitions import Partitions, choose_partitions, windows_at_once
from ifguide.influence.head import Labels
from ifguide.influence.passes.checks import largest_batch
from ifguide.influence.planning.shape import shape_of
from ifguide.influence.tensors import all_finite
from ifguide.influence.windows import Windows
from ifguide.models.devices import free_memory
from ifguide.models.tracked import ScoredModel
from ifguide.system.progress import Progress

LAMBDA_SCALE = {"ekfac": "per window", "kfac": "per token", "diagonal": "per window", "identity": None}
"""What Λ of each strategy is a mean over."""
# of a probability of 1
_UNITS = 1 << 40


def fit_layers(
    model: ScoredModel,
    windows: Windows,
    strategy: str,
    batch_tokens: int,
    seed: int,
    quiet: bool = True,
    partitions: Partitions | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Tensors of each tracked layer. Afterwards ``model`` is wrapped by kronfluence: do not use it again.

    Batches have at most ``batch_tokens`` tokens and `BACKWARD_TOKENS`; the factors do not depend on them.

    Args:
        partitions: how the fit is cut (None: `partitions_for`).

    Raises:
        NumericsError: a factor is not finite.
    """
    if strategy == "identity":
        return {name: {} for name in model.tracked}
    names = list(model.tracked)
    partitions = partitions or partitions_for(model, windows, strategy, batch_tokens)
    label = ", ".join(filter(None, [f"fit {strategy}", partitions.describe()]))
    tokens = partitions.passes(strategy) * int(windows.scored.sum())
    with Progress(tokens, "tokens", label, quiet=quiet) as progress:
        found = _run_kronfluence(model, windows, strategy, batch_tokens, seed, progress, partitions)
    layers = {}
    for name in names:
        tensors = {}
        if strategy != "diagonal":
            tensors["U_A"] = found["activation_eigenvectors"][name]
            tensors["U_G"] = found["gradient_eigenvectors"][name]
        if strategy == "kfac":
            tensors["Lambda"] = torch.outer(
                *(found[f"{side}_eigenvalues"][name].clamp(min=0) for side in ("gradient", "activation"))
            )
        else:
            tensors["Lambda"] = found["lambda_matrix"][name] / found["num_lambda_processed"][name]
        layers[name] = {key: tensor.contiguous() for key, tensor in tensors.items()}
        for key, tensor in tensors.items():
            if not all_finite(tensor):
                raise NumericsError(f"factor {key} of {name} is not finite; does the model give finite losses?")
    return layers


def partitions_for(model: ScoredModel, windows: Windows, strategy: str, batch_tokens: int) -> Partitions:
    """How the fit of ``windows`` is cut, by what the model's device has free now."""
    free = free_memory(model.device)
    if free is None or strategy == "identity":
        return Partitions()
    rows, columns = largest_fit_batch(model, windows, batch_tokens).inputs.shape
    return choose_partitions(fit_sizes(shape_of(model), rows, columns, model.device.type), strategy, free)


def _run_kronfluence(
    model: ScoredModel,
    windows: Windows,
    strategy: str,
    batch_tokens: int,
    seed: int,
    progress: Progress,
    partitions: Partitions,
) -> dict[str, dict[str, Tensor]]:
    """kronfluence's factors: factor name -> layer -> tensor."""
    groups = group_by_length(windows.lengths, *_batch_limits(model, batch_tokens))
    batches = _Batches(windows, groups, seed)
    # covariances in the weights' precision, at least fp32
    dtype = torch.promote_types(model.dtype, torch.float32)
    loss = _loss(model, progress)
    return kronfluence.fit(
        model.model,
        batches,
        loss,
        list(model.tracked),
        strategy,
        dtype,
        cpu=model.device.type == "cpu",
        covariance_partitions=partitions.covariances,
        second_moment_partitions=partitions.second_moments,
        offload=partitions.offload,
    )


def largest_fit_batch(model: ScoredModel, windows: Windows, batch_tokens: int) -> Batch:
    """The batch of a fit that needs the most memory."""
    return largest_batch(windows, *_batch_limits(model, batch_tokens))


def _batch_limits(model: ScoredModel, batch_tokens: int) -> tuple[int, int]:
    """Tokens of a batch, and windows for which kronfluence's gradients, one each, still fit."""
    shapes = [model.matrix_shape(name) for name in model.tracked]
    return min(batch_tokens, BACKWARD_TOKENS), windows_at_once(shapes, model.head.weight.element_size())


class _Batches(torch.utils.data.Dataset):
    """Padded batches, each with the uniform numbers its labels are drawn with.

    The numbers follow the data order, so that the labels do not depend on the batch size.
    """

    def __init__(self, windows: Windows, groups: list[np.ndarray], seed: int):
        self._windows, self._groups = windows, groups
        self._offsets = np.cumsum(windows.scored) - windows.scored
        self._uniform = np.random.default_rng([seed, 1]).random(int(windows.scored.sum()), dtype=np.float64)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        group = self._groups[index]
        batch = self._windows.batch(group)
        uniform = np.concatenate(
            [self._uniform[self._offsets[w] : self._offsets[w] + self._windows.scored[w]] for w in group]
        )
        return {
            "inputs": batch.inputs,
            "labels": batch.labels,
            "real": batch.real.long(),
            "uniform": torch.from_numpy(uniform),
        }


def _loss(scored: ScoredModel, progress: Progress) -> Callable[[dict[str, Tensor], bool], Tensor]:
    """The summed loss of a batch, with its own labels or with labels drawn from the model."""

    def loss(batch: dict[str, Tensor], sample: bool) -> Tensor:
        labelled = batch["labels"] != NO_LABEL
        hidden, uniform = scored.hidden(batch["inputs"])[labelled], batch["uniform"]
        drawn: Labels = lambda logits, rows: draw_labels(logits, uniform[rows])  # noqa: E731
        total = head_loss(scored, hidden, drawn if sample else batch["labels"][labelled])
        progress.update(len(hidden))
        if not torch.isfinite(total):
            raise NumericsError(f"the loss of model {scored.directory} is not finite on this data: broken weights?")
        return total

    return loss


def draw_labels(logits: Tensor, uniform: Tensor) -> Tensor:
    """Labels[N] drawn from softmax(``logits``[N, V]) by inverting its distribution at ``uniform``[N] in [0, 1).

    Probabilities are counted in units of 2^-40: sums of integers are the same in whatever order a device takes them,
    those of floats on a GPU are not the same twice.
    """
    rows = max(1, DRAWN_ELEMENTS // logits.shape[-1])
    return torch.cat([_draw(*some) for some in zip(logits.split(rows), uniform.split(rows), strict=True)])


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    probabilities = torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    cumulative = probabilities.mul_(_UNITS).to(torch.int64).cumsum(dim=-1)
    threshold = (uniform.to(torch.float64)[:, None] * cumulative[:, -1:]).to(torch.int64)
    labels = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
    return labels.clamp(max=logits.shape[-1] - 1)
