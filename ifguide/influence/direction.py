"""The direction that token scores are taken along:

    (M1)  v = H~^-1 (g_tox - g_safe),   g = Σ_q w_q ∇θ(-log p(completion_q | prompt_q)) / Σ_q w_q

``g`` is the gradient of a LOSS. A preconditioned step on a training token, ``-ε H~^-1 ∇l``, changes the
toxic-minus-safe loss by ``-ε v·∇l``, so the toxic-minus-safe log-likelihood rises by ``ε v·∇l`` (M2).

Shapes: O outputs, I inputs with the bias column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.errors import NumericsError
from ifguide.influence.backward.gradients import HostGradients, blocks_run_again, go_back, gradients_to
from ifguide.influence.batches import BACKWARD_TOKENS, Batch, collate, group_by_length
from ifguide.influence.curvature.damping import damped
from ifguide.influence.curvature.store import Factors
from ifguide.influence.options import Damping
from ifguide.influence.passes.checks import memory_advice
from ifguide.influence.queries import Query, queries_fingerprint
from ifguide.influence.tensors import all_finite, load_recorded, moved, save_recorded
from ifguide.models.tracked import ScoredModel

Direction = dict[str, Tensor]
"""One matrix [O, I] per tracked layer."""


def compute_directions(
    model: ScoredModel,
    factors: Factors,
    pairs: Sequence[tuple[Sequence[Query], Sequence[Query]]],
    damping: Damping,
    batch_tokens: int,
) -> list[Direction]:
    """All of `each_direction`."""
    return list(each_direction(model, lambda: factors, pairs, damping, batch_tokens))


def each_direction(
    model: ScoredModel,
    factors: Callable[[], Factors],
    pairs: Sequence[tuple[Sequence[Query], Sequence[Query]]],
    damping: Damping,
    batch_tokens: int,
) -> Iterator[Direction]:
    """(M1) for each pair of a toxic and a safe set, one after the other, in the host's memory.

    An empty safe set leaves its term out: influence on the toxic queries alone. The queries of a pair are gone through
    in one signed pass; a set that several pairs have in common is gone through once, in a pass of its own.

    Args:
        factors: gives them; asked when the first gradient is there, so that they can be read meanwhile.

    Raises:
        InputError: a batch of queries does not fit the memory.
        NumericsError: a gradient is not finite, or a curvature is zero.
    """
    signed = [[(queries, sign) for queries, sign in ((toxic, 1.0), (safe, -1.0)) if queries] for toxic, safe in pairs]
    keys = [[queries_fingerprint(queries) for queries, _ in sets] for sets in signed]
    uses = Counter(key for of_pair in keys for key in of_pair)
    shared: dict[str, Direction] = {}
    for sets, of_pair in zip(signed, keys, strict=True):
        own = [term for term, key in zip(sets, of_pair, strict=True) if uses[key] == 1]
        difference = signed_gradient(model, own, batch_tokens) if own else None
        for (queries, sign), key in zip(sets, of_pair, strict=True):
            if uses[key] == 1:
                continue
            if key not in shared:
                shared[key] = mean_gradient(model, queries, batch_tokens)
            if difference is None:
                difference = {name: torch.zeros_like(matrix) for name, matrix in shared[key].items()}
            for name, matrix in difference.items():
                matrix.add_(shared[key][name], alpha=sign)
        assert difference is not None
        layers = factors().layers
        for name, matrix in difference.items():
            difference[name] = _precondition_layer(matrix, layers[name], damping, name, model.device)
        yield difference


def mean_gradient(model: ScoredModel, queries: Sequence[Query], batch_tokens: int) -> Direction:
    """``g``[O, I] per layer: the weighted mean over ``queries`` of the gradient of their summed loss.

    Raises:
        NumericsError: a gradient is not finite; names the layer.
    """
    return signed_gradient(model, [(queries, 1.0)], batch_tokens)


def signed_gradient(model: ScoredModel, sets: Sequence[tuple[Sequence[Query], float]], batch_tokens: int) -> Direction:
    """``Σ_s c_s g_s``[O, I] per layer, in the host's memory, of sets of queries and their signs ``c``.

    Ordinary backward passes over batches of all sets together, never a gradient per query. A batch has at most
    ``batch_tokens`` tokens and `BACKWARD_TOKENS`. Beside the weights the device holds the gradient of one layer.

    Raises:
        InputError: a batch does not fit the memory.
        NumericsError: a gradient is not finite; names the layer.
    """
    sums = HostGradients(model)
    with gradients_to(model, sums.take), blocks_run_again(model):
        for batch, shares in signed_batches(sets, min(batch_tokens, BACKWARD_TOKENS)):
            with memory_advice(batch):
                go_back(model, batch, torch.from_numpy(shares).to(model.dtype))
    require_finite(sums.matrices)
    return sums.matrices


def signed_batches(
    sets: Sequence[tuple[Sequence[Query], float]], batch_tokens: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Batches of the queries of all ``sets`` together, and what the loss of each sequence counts in ``Σ_s c_s g_s``."""
    queries = [query for of_set, _ in sets for query in of_set]
    shares = np.concatenate([_shares(of_set, sign) for of_set, sign in sets])
    for group in group_by_length(np.array([len(query.inputs) for query in queries]), batch_tokens):
        yield collate([queries[q].inputs for q in group], [queries[q].labels for q in group]), shares[group]


def require_finite(gradient: Direction) -> None:
    """
    Raises:
        NumericsError: a gradient of the queries is not finite; names the layer.
    """
    for name, matrix in gradient.items():
        if not all_finite(matrix):
            raise NumericsError(f"the queries' gradient is not finite in {name}; does the model give finite losses?")


def _shares(queries: Sequence[Query], sign: float) -> np.ndarray:
    """What each query's loss counts."""
    weights = np.array([query.weight for query in queries])
    return sign * (weights / weights.sum())


def precondition(
    gradient: Direction, factors: Factors, damping: Damping, device: torch.device | None = None
) -> Direction:
    """``H~^-1 g`` per layer, in float64 (once per run, so exactness costs nothing).

    ``U_G ((U_G^T g U_A) / (Λ + damping)) U_A^T``; the eigenbasis is absent for a diagonal, all of it for the identity.

    Args:
        device: where a layer at a time is computed (None: where it is); the result is where ``gradient`` is.

    Raises:
        NumericsError: Λ + damping is not positive everywhere; names the layer.
    """
    return {
        name: _precondition_layer(matrix, factors.layers[name], damping, name, device or matrix.device)
        for name, matrix in gradient.items()
    }


def _precondition_layer(
    matrix: Tensor, factors: dict[str, Tensor], damping: Damping, name: str, device: torch.device
) -> Tensor:
    layer = {key: moved(tensor, device, torch.float64) for key, tensor in factors.items()}
    inverse = moved(matrix, device, torch.float64)
    if "U_A" in layer:
        inverse = layer["U_G"].T @ inverse @ layer["U_A"]
    if "Lambda" in layer:
        inverse = inverse / damped(layer["Lambda"], damping, name)
    if "U_A" in layer:
        inverse = layer["U_G"] @ inverse @ layer["U_A"].T
    return moved(inverse, matrix.device, matrix.dtype)


def save_direction(prefix: str | Path, direction: Direction, about: dict[str, Any]) -> None:
    """Write ``prefix.direction.{safetensors,json}``."""
    save_recorded(
        *direction_paths(prefix),
        {name: matrix.cpu().contiguous() for name, matrix in direction.items()},
        {"identity": about},
    )


def load_direction(prefix: str | Path, about: dict[str, Any]) -> Direction | None:
    """The saved direction if it is whole and has the identity ``about``, else None."""
    found = load_recorded(*direction_paths(prefix), about, "direction")
    return None if found is None else found[0]


def direction_paths(prefix: str | Path) -> tuple[Path, Path]:
    """The tensors of the direction beside ``prefix``, and its record."""
    return Path(f"{prefix}.direction.safetensors"), Path(f"{prefix}.direction.json")
