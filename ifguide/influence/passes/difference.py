"""Scores of every token of a batch from two plain forward passes with moved weights.

    (M2)  s_t = v · ∇θ l_t ≈ ∇_h l_t · (h_t(θ + εv) - h_t(θ - εv)) / 2ε,    ∇_h l at the middle of the two h

Only the last hidden states h are differenced: the head is not tracked, so its derivative is exact (`head`), and the
error stays O(ε²). The difference of two finished losses would lose digits in the head, where logits of some tens hide a
change far below one, and in each log-sum-exp.

One-sided, K directions share the unmoved pass and its head, so that K + 1 passes do, with error O(ε):

    s_t ≈ ∇_h l_t(θ) · (h_t(θ + εv) - h_t(θ)) / ε

Any attention kernel serves, nothing is stored for a backward pass, and matmuls have the precision of the weights.

Shapes: K directions, B windows, T positions, N labelled positions, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ifguide.errors import InputError
from ifguide.influence.batches import Batch, in_pieces
from ifguide.influence.direction import Direction
from ifguide.influence.head import loss_gradient
from ifguide.influence.passes import checks
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.tensors import moved
from ifguide.models.tracked import ScoredModel

# what torch calls the ways to multiply float32 matrices -> what a record calls them
_PRECISIONS = {"none": "float32", "ieee": "float32", "highest": "float32", "tf32": "tf32", "high": "tf32"}


class DifferencePass:
    """Difference quotients along fixed directions.

    Holds the moved weights: per direction two copies of the tracked weights, one where ``one_sided``. The directions
    themselves are not kept. A batch needs what a plain forward pass without a graph needs, and a second [N, H].

    Args:
        model: float32 (float64 in tests), unchanged.
        step: ``|εv| / |θ|`` over the tracked weights together, for each direction by itself.
        one_sided: all directions share one unmoved pass.
        gradient: what gives ∇_h l; another than the head's own makes the scores cheap ones (`cascade.head`).

    Attributes:
        precision: of the matmuls, "float32" or "tf32": the caller's setting, for records. A step that was searched
            under one does not serve the other.

    Raises:
        InputError: weights or matmuls of less than that, or a step that is no positive number.
    """

    def __init__(
        self,
        model: ScoredModel,
        directions: Sequence[Direction | dict[str, LowRank]],
        step: float,
        one_sided: bool = False,
        gradient: Callable[[ScoredModel, Tensor, Tensor], Tensor] = loss_gradient,
    ):
        if not 0 < step < math.inf:
            raise InputError(f"a step of {step}: must be a positive number")
        self.precision = _precision(model)
        self._model = model
        self._one_sided = one_sided
        self._gradient = gradient
        length = _norm(model.tracked_parameters(), model.device)
        self._moves = [_Move(model, direction, step * length, one_sided) for direction in directions]

    @in_pieces
    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """(M2) ``s``[K, B, T] of ``batch``, 0 where there is no label."""
        labelled = batch.labelled
        labels = batch.labels[labelled]
        result = torch.zeros(len(self._moves), *labelled.shape, dtype=self._model.dtype, device=self._model.device)
        with self._model.attention("sdpa"), torch.autocast(self._model.device.type, enabled=False):
            if self._one_sided:
                start = self._model.hidden(batch.inputs)[labelled]
                gradient = self._gradient(self._model, start, labels)
            for scores, move in zip(result, self._moves, strict=True):
                if not self._one_sided:
                    start = self._model.hidden(batch.inputs, move.below)[labelled]
                change = self._model.hidden(batch.inputs, move.above)[labelled].sub_(start)
                if not self._one_sided:
                    gradient = self._gradient(self._model, start.add_(change, alpha=0.5), labels)
                scores[labelled] = torch.linalg.vecdot(gradient, change) / move.width
        return result

    def first_bad_layer(self, batch: Batch) -> str:
        """Where the first number of ``batch`` that is not finite appears."""
        return checks.first_bad_layer(self._model, batch, self.scores)


class _Move:
    """The weights on both sides of θ along one direction.

    Attributes:
        above: θ + εv, as `ScoredModel.hidden` takes them.
        below: θ - εv; empty where one-sided.
        width: 2ε, or ε where one-sided.
    """

    def __init__(self, model: ScoredModel, direction: Direction | dict[str, LowRank], distance: float, one_sided: bool):
        length = _norm({name: _dense(matrix) for name, matrix in direction.items()}, model.device)
        # a direction of zeros goes nowhere, and its scores are zeros
        size = distance / length if length else 1.0
        parameters = model.tracked_parameters()
        self.width = size if one_sided else 2 * size
        self.above: dict[str, Tensor] = {}
        self.below: dict[str, Tensor] = {}
        for name, matrix in direction.items():
            for key, tangent in model.split_bias({name: _dense(matrix)}).items():
                self.above[key] = parameters[key].add(tangent, alpha=size)
                if not one_sided:
                    self.below[key] = parameters[key].sub(tangent, alpha=size)


def _dense(matrix: Tensor | LowRank) -> Tensor:
    return matrix.dense() if isinstance(matrix, LowRank) else matrix


def _norm(tensors: dict[str, Tensor], device: torch.device) -> float:
    """Length of all ``tensors`` together, in float64.

    The same to the bit for every process of a run, whether it computed a direction or read it: always summed on
    ``device``, each row by itself, which no number of threads divides, and the rows without rounding.
    """
    rows = (moved(tensor, device, torch.float64).square().sum(dim=-1).reshape(-1) for tensor in tensors.values())
    return math.sqrt(math.fsum(value for row in rows for value in row.tolist()))


def _precision(model: ScoredModel) -> str:
    """How torch multiplies this model's matrices now.

    Raises:
        InputError: with too few digits for a difference.
    """
    if model.dtype not in (torch.float32, torch.float64):
        name = str(model.dtype).removeprefix("torch.")
        raise InputError(f"--method difference needs float32 weights, {name} rounds too much; use --method jvp")
    backend = torch.backends.cuda if model.device.type == "cuda" else torch.backends.mkldnn
    # torch before 2.9 has one setting for all devices
    setting = getattr(getattr(backend, "matmul", None), "fp32_precision", None) or torch.get_float32_matmul_precision()
    if setting not in _PRECISIONS:
        raise InputError(
            f"--method difference needs float32 or TF32 matmuls, torch is set to {setting}; use --method jvp, or "
            'torch.set_float32_matmul_precision("high")'
        )
    return "float32" if model.dtype == torch.float64 else _PRECISIONS[setting]
