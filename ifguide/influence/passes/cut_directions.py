"""Directions cut to a rank, kept beside the whole ones: the first process of a run cuts them, the others read them.

A cut takes an eigendecomposition in float64 for each layer: minutes of a processor at a billion parameters. So it is
made once, where the model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.influence.direction import Direction
from ifguide.influence.passes.low_rank import LowRank, truncate
from ifguide.influence.tensors import load_recorded, save_recorded

_LEFT, _RIGHT = "left", "right"


def cut_and_keep(
    whole: Sequence[Direction],
    rank: int,
    prefixes: Sequence[str | Path],
    about: Sequence[dict[str, Any]],
    device: torch.device,
) -> tuple[list[dict[str, LowRank]], list[dict[str, Any]]]:
    """Cut each of ``whole`` on ``device`` and write ``prefix.direction.rank-R.{safetensors,json}``.

    Args:
        prefixes, about: of each direction; ``about`` is what it was made from.

    Returns:
        The cut directions, and what `truncate` says of each.
    """
    found = []
    for direction, prefix, made_from in zip(whole, prefixes, about, strict=True):
        factors, energy = truncate(direction, rank, device)
        sides = {f"{name}/{side}": getattr(low, side) for name, low in factors.items() for side in (_LEFT, _RIGHT)}
        kept = {key: side.cpu().contiguous() for key, side in sides.items()}
        save_recorded(*_paths(prefix, rank), kept, {"identity": made_from, "energy": energy})
        found.append((factors, energy))
    return [factors for factors, _ in found], [energy for _, energy in found]


def find_cut(
    rank: int, prefixes: Sequence[str | Path], about: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, LowRank]], list[dict[str, Any]]] | None:
    """What `cut_and_keep` kept of the same directions, None unless all of it is there and whole."""
    found = [_find(rank, prefix, made_from) for prefix, made_from in zip(prefixes, about, strict=True)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    return [factors for factors, _ in known], [energy for _, energy in known]


def _find(rank: int, prefix: str | Path, made_from: dict[str, Any]) -> tuple[dict[str, LowRank], dict[str, Any]] | None:
    found = load_recorded(*_paths(prefix, rank), made_from, "cut direction")
    if found is None:
        return None
    tensors, record = found
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, side = key.rpartition("/")
        sides.setdefault(name, {})[side] = tensor
    return {name: LowRank(both[_LEFT], both[_RIGHT]) for name, both in sides.items()}, record["energy"]


def _paths(prefix: str | Path, rank: int) -> tuple[Path, Path]:
    return Path(f"{prefix}.direction.rank-{rank}.safetensors"), Path(f"{prefix}.direction.rank-{rank}.json")
