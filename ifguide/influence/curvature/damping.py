"""Damping: what makes a curvature that is zero somewhere invertible."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ifguide.errors import InputError, NumericsError


@dataclass(frozen=True)
class Damping:
    """What is added to Λ before it is inverted.

    Attributes:
        value: non-negative; a multiple of the layer's mean Λ if ``relative``, else the number itself.
    """

    value: float = 0.1
    relative: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.value < float("inf"):
            raise InputError(f"--damping {self.value}: must be a number of at least 0")


def damped(eigenvalues: Tensor, damping: Damping, name: str) -> Tensor:
    """Λ + damping[O, I] of layer ``name``.

    Raises:
        NumericsError: it is not positive everywhere; names the layer.
    """
    added = damping.value * float(eigenvalues.mean()) if damping.relative else damping.value
    result = eigenvalues + added
    if not bool((result > 0).all()):
        raise NumericsError(
            f"the curvature of {name} plus damping {added:.3g} is not positive everywhere; give a larger --damping "
            "(--absolute-damping where the curvature is zero)"
        )
    return result
