"""Damping: what makes a curvature that is zero somewhere invertible."""

from __future__ import annotations

from torch import Tensor

from ifguide.errors import NumericsError
from ifguide.influence.options import Damping


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
