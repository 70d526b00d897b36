"""The direction that token scores are taken along:

    (M1)  v = H~^-1 (g_tox - g_safe),   g = Σ_q w_q ∇θ(-log p(completion_q | prompt_q)) / Σ_q w_q

``g`` is the gradient of a LOSS. A preconditioned step on a training token, ``-ε H~^-1 ∇l``, changes the
toxic-minus-safe loss by ``-ε v·∇l``, so the toxic-minus-safe log-likelihood rises by ``ε v·∇l`` (M2).

Shapes: B queries, T positions, N completion tokens, O outputs, I inputs with the bias column.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.errors import NumericsError
from ifguide.influence.batches import collate, group_by_length
from ifguide.influence.curvature.damping import damped
from ifguide.influence.curvature.store import Factors
from ifguide.influence.options import Damping
from ifguide.influence.queries import Query, queries_fingerprint
from ifguide.influence.tensors import save_tensors
from ifguide.models.tracked import ScoredModel, label_losses
from ifguide.system.files import hash_file, read_json, write_json

Direction = dict[str, Tensor]
"""One matrix [O, I] per tracked layer."""


def compute_directions(
    model: ScoredModel,
    factors: Factors,
    pairs: Sequence[tuple[Sequence[Query], Sequence[Query]]],
    damping: Damping,
    batch_tokens: int,
) -> list[Direction]:
    """(M1) for each pair of a toxic and a safe set; a set that occurs twice is gone through once. An empty safe set
    leaves its term out: influence on the toxic queries alone.

    Raises:
        NumericsError: a gradient is not finite, or a curvature is zero.
    """
    means: dict[str, Direction] = {}

    def mean(queries: Sequence[Query]) -> Direction:
        key = queries_fingerprint(queries)
        if key not in means:
            means[key] = mean_gradient(model, queries, batch_tokens)
        return means[key]

    differences = (
        {name: g_toxic[name] - g_safe[name] if g_safe else g_toxic[name] for name in model.tracked}
        for g_toxic, g_safe in ((mean(toxic), mean(safe) if safe else None) for toxic, safe in pairs)
    )
    return [precondition(difference, factors, damping) for difference in differences]


def mean_gradient(model: ScoredModel, queries: Sequence[Query], batch_tokens: int) -> Direction:
    """``g``[O, I] per layer: the weighted mean over ``queries`` of the gradient of their summed loss.

    One ordinary backward pass per batch, never a gradient per query.

    Raises:
        NumericsError: a gradient is not finite; names the layer.
    """
    weights = np.array([query.weight for query in queries])
    weights /= weights.sum()
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in model.tracked_parameters().items()}
    for group in group_by_length(np.array([len(query.inputs) for query in queries]), batch_tokens):
        batch = collate([queries[q].inputs for q in group], [queries[q].labels for q in group]).to(model.device)
        labelled = batch.labelled
        share = torch.from_numpy(weights[group]).to(model.device, model.dtype)
        losses = label_losses(model.logits(model.hidden(batch.inputs, parameters)[labelled]), batch.labels[labelled])
        (losses * share[:, None].expand(labelled.shape)[labelled]).sum().backward()
    gradient = model.join_bias({name: _gradient_of(tensor) for name, tensor in parameters.items()})
    for name, matrix in gradient.items():
        if not torch.isfinite(matrix).all():
            raise NumericsError(f"the queries' gradient is not finite in {name}; does the model give finite losses?")
    return gradient


def precondition(gradient: Direction, factors: Factors, damping: Damping) -> Direction:
    """``H~^-1 g`` per layer, in float64 (once per run, so exactness costs nothing).

    ``U_G ((U_G^T g U_A) / (Λ + damping)) U_A^T``; the eigenbasis is absent for a diagonal, all of it for the identity.

    Raises:
        NumericsError: Λ + damping is not positive everywhere; names the layer.
    """
    result = {}
    for name, matrix in gradient.items():
        layer = {key: tensor.to(matrix.device, torch.float64) for key, tensor in factors.layers[name].items()}
        inverse = matrix.to(torch.float64)
        if "U_A" in layer:
            inverse = layer["U_G"].T @ inverse @ layer["U_A"]
        if "Lambda" in layer:
            inverse = inverse / damped(layer["Lambda"], damping, name)
        if "U_A" in layer:
            inverse = layer["U_G"] @ inverse @ layer["U_A"].T
        result[name] = inverse.to(matrix.dtype)
    return result


def save_direction(prefix: str | Path, direction: Direction, about: dict[str, Any]) -> None:
    """Write ``prefix.direction.{safetensors,json}``."""
    tensors, record = _paths(prefix)
    save_tensors(tensors, {name: matrix.cpu().contiguous() for name, matrix in direction.items()})
    write_json(record, {"identity": about, "tensors": hash_file(tensors)})


def load_direction(prefix: str | Path, about: dict[str, Any]) -> Direction | None:
    """The saved direction if it is whole and has the identity ``about``, else None."""
    from safetensors.torch import load_file

    tensors, record = _paths(prefix)
    if not (tensors.exists() and record.exists()):
        return None
    known = read_json(record, "direction")
    if known.get("identity") != about or known.get("tensors") != hash_file(tensors):
        return None
    return load_file(tensors)


def _gradient_of(parameter: Tensor) -> Tensor:
    """What backward left, or zeros where no loss reaches (an expert that no query was routed to)."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _paths(prefix: str | Path) -> tuple[Path, Path]:
    return Path(f"{prefix}.direction.safetensors"), Path(f"{prefix}.direction.json")
