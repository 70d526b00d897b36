"""What each way of scoring has to compute, and how fast this machine multiplies matrices.

Shapes: O outputs and I inputs of a tracked layer, T positions of a window, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attribution_case import DIFFERENCE, JVP, LOW_RANK, ONE_SIDED, POSITION, Shape
from common import median_time

# multiples of one pass over (tracked layers, attention, head); the head counts twice where its gradient is wanted
_PASSES = {
    "plain forward": (1, 1, 1),
    "training step": (3, 3, 3),
    JVP: (3, 3, 2),
    LOW_RANK: (2, 3, 2),
    DIFFERENCE: (2, 2, 2),
    ONE_SIDED: (5, 5, 2),
    POSITION: (3, 3, 2),
    "kronfluence": (3, 3, 2),
    "bergson": (3, 3, 2),
}
_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}


def flops_per_token(shape: Shape, rank: int) -> dict[str, float]:
    """Of each way, matrix products alone. Attention counts all T x T pairs: a kernel that leaves out the masked half
    may come out above its share."""
    layers = sum(2.0 * outputs * inputs for outputs, inputs in shape.layer_weights)
    attention = 4.0 * shape.window * shape.hidden * shape.layers
    head = 2.0 * shape.hidden * shape.vocabulary
    factors = sum(2.0 * min(rank, outputs, inputs) * (outputs + inputs) for outputs, inputs in shape.layer_weights)
    found = {name: a * layers + b * attention + c * head for name, (a, b, c) in _PASSES.items()}
    found[LOW_RANK] += factors
    return found


def matmul_rate(
    device: str, dtype: str, synchronize: Callable[[], None], sizes: tuple[int, ...] | None = None
) -> float:
    """FLOP/s of the best of a few square matrix products (median of five each)."""
    import torch

    best = 0.0
    for size in sizes or _SIZES[device]:
        a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))

        def work(a: Any = a, b: Any = b) -> None:
            torch.mm(a, b)
            synchronize()

        best = max(best, 2 * size**3 / median_time(work).median)
    return best


@contextmanager
def multiplied(precision: str) -> Iterator[None]:
    """Multiply fp32 matrices with this precision for a while ("high" is TF32)."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
