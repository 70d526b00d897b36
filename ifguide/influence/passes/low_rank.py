"""A direction cut to a low rank: the pass multiplies through R numbers in place of I·O.

    V ≈ A B^T,  A[O, R], B[I, R]

from the R largest singular values of V: the best approximation of its rank in the sum of squares.

Shapes: O outputs, I inputs (with the bias column) of a tracked layer, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ifguide.errors import InputError


@dataclass(frozen=True, eq=False)
class LowRank:
    """The matrix ``left right^T``[O, I].

    Attributes:
        left: [O, R].
        right: [I, R]; its last row belongs to the bias where there is one.
    """

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        """[O, I]."""
        return self.left @ self.right.T


def truncate(
    direction: dict[str, Tensor], rank: int, device: torch.device | None = None
) -> tuple[dict[str, LowRank], dict[str, Any]]:
    """Cut every layer's matrix [O, I] to ``rank`` (or to its own, where that is lower).

    Args:
        device: computes, a layer at a time (None: where the matrices are). The factors lie where the matrices do.

    Returns:
        The factors, and what is kept of the squared singular values: ``{"rank": R, "kept": share over all layers
        together, "lowest": {"layer": name, "kept": share}}``, the layer that loses most.

    Raises:
        InputError: ``rank`` is not positive.
    """
    if rank < 1:
        raise InputError(f"--rank {rank}: must be at least 1")
    factors, shares, kept, total = {}, {}, 0.0, 0.0
    for name, matrix in direction.items():
        moved = matrix.to(device)
        cut = _truncate(moved, rank)
        layer_total = float(moved.to(torch.float64).square().sum())
        layer_kept = _energy(cut)
        factors[name] = LowRank(cut.left.to(matrix.device), cut.right.to(matrix.device))
        kept, total = kept + layer_kept, total + layer_total
        shares[name] = layer_kept / layer_total if layer_total else 1.0
    lowest = min(shares, key=shares.__getitem__)
    energy_kept = {
        "rank": rank,
        "kept": kept / total if total else 1.0,
        "lowest": {"layer": lowest, "kept": shares[lowest]},
    }
    return factors, energy_kept


def _truncate(matrix: Tensor, rank: int) -> LowRank:
    """By the eigenvectors of the smaller of ``V V^T`` and ``V^T V``: a fraction of the work of the singular values.

    In float64 the squares lose nothing that matters: a singular vector is off where its value is 1e-8 of the largest.
    """
    exact = matrix.to(torch.float64)
    wide = exact.shape[0] <= exact.shape[1]
    gram = exact @ exact.T if wide else exact.T @ exact
    basis = torch.linalg.eigh(gram).eigenvectors[:, -rank:]
    projected = exact.T @ basis if wide else exact @ basis
    left, right = (basis, projected) if wide else (projected, basis)
    return LowRank(left.to(matrix.dtype), right.to(matrix.dtype))


def _energy(matrix: LowRank) -> float:
    """Sum of squares of ``A B^T``: tr(A^T A B^T B)."""
    left, right = matrix.left.to(torch.float64), matrix.right.to(torch.float64)
    return float(((left.T @ left) * (right.T @ right)).sum())
