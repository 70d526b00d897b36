"""How kronfluence's fit is cut so that it fits the device: in partitions of layers, each with a pass of its own.

Without partitions all covariances lie on the device at once, then all bases with all second moments. A partition holds
those of its layers alone. Which layers are together is kronfluence's choice: consecutive ones, as many in each as in
any other. The factors are the same, whatever the partitions.

Shapes: O outputs, I inputs with the bias column of a tracked layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

PER_WINDOW_GRADIENT_BYTES = 1 << 29
"""kronfluence holds one gradient for each window of a batch: so much of them at a time, or those of one window."""
# an allocator wastes some of what is free
_USABLE = 0.9
# of the gradient of each window: itself, and what is between it and its place in the eigenbasis
_GRADIENT_COPIES = 3


@dataclass(frozen=True)
class Partitions:
    """How a fit is cut.

    Attributes:
        covariances: passes over the sample for the covariances.
        second_moments: passes for Λ.
        offload: what layers take waits in the host's memory for its gradients.
    """

    covariances: int = 1
    second_moments: int = 1
    offload: bool = False

    def passes(self, strategy: str) -> int:
        """How often the sample is gone through."""
        first = self.covariances if strategy in ("ekfac", "kfac") else 0
        return first + (self.second_moments if strategy in ("ekfac", "diagonal") else 0)

    def describe(self) -> str:
        """For people: what is cut."""
        parts = [
            f"{name} in {count} partitions of layers"
            for name, count in (("covariances", self.covariances), ("second moments", self.second_moments))
            if count > 1
        ]
        return ", ".join([*parts, *(["activations wait in the host's memory"] if self.offload else [])])


WHOLE = Partitions()


@dataclass(frozen=True)
class FitSizes:
    """What a fit holds, in numbers of ``width`` bytes.

    Attributes:
        layers: (O, I) of each tracked layer, in the model's order.
        batch: positions of the largest batch.
        windows: of that batch.
        working: what a backward pass over that batch holds beside weights and factors.
        width: bytes of a number.
    """

    layers: Sequence[tuple[int, int]]
    batch: int
    windows: int
    working: int
    width: int = 4


def windows_at_once(layers: Sequence[tuple[int, int]], width: int = 4) -> int:
    """Windows of a batch for which kronfluence's gradients, one each, stay below `PER_WINDOW_GRADIENT_BYTES`."""
    return max(1, PER_WINDOW_GRADIENT_BYTES // (width * max(o * i for o, i in layers)))


def choose_partitions(sizes: FitSizes, strategy: str, free: int | None) -> Partitions:
    """The fewest passes with which a fit needs no more than ``free`` bytes beside the weights.

    Activations wait in the host's memory where that saves a pass: bringing them there and back takes about as long as
    one. Where nothing fits every layer is a partition of its own.

    Args:
        free: None does not ask: one partition. On a CPU it cannot help, the host holds all factors at the end.
    """
    if free is None or strategy == "identity":
        return WHOLE
    room = int(_USABLE * free)
    counts = range(1, len(sizes.layers) + 1)

    def fewest(needed: Callable[[int], int]) -> int:
        return next((count for count in counts if needed(count) <= room), len(sizes.layers))

    covariances = second_moments = 1
    offload = False
    if strategy in ("ekfac", "kfac"):
        covariances = fewest(partial(covariance_bytes, sizes))
    if strategy in ("ekfac", "diagonal"):
        second_moments = fewest(partial(second_moment_bytes, sizes, strategy, offload=True))
        offload = second_moment_bytes(sizes, strategy, second_moments, offload=False) > room
    return Partitions(covariances, second_moments, offload)


def covariance_bytes(sizes: FitSizes, partitions: int) -> int:
    """Bytes beside the weights while covariances are summed, in the largest partition."""
    squares = max(sum(o * o + i * i for o, i in part) for part in _parts(sizes.layers, partitions))
    # the inputs, or the gradients, of one layer: masked, in a tensor of their own
    copies = 2 * sizes.batch * max(max(pair) for pair in sizes.layers)
    return sizes.working + sizes.width * (squares + copies)


def second_moment_bytes(sizes: FitSizes, strategy: str, partitions: int, offload: bool) -> int:
    """Bytes beside the weights while second moments are summed, in the largest partition."""
    largest = max(o * i for o, i in sizes.layers)
    gradients = _GRADIENT_COPIES * sizes.windows * largest

    def of(part: Sequence[tuple[int, int]]) -> int:
        bases = sum(o * o + i * i for o, i in part) if strategy == "ekfac" else 0
        inputs = max(i for _, i in part) if offload else sum(i for _, i in part)
        return bases + sum(o * i for o, i in part) + sizes.batch * inputs

    return sizes.working + sizes.width * (gradients + max(of(part) for part in _parts(sizes.layers, partitions)))


def _parts(layers: Sequence[tuple[int, int]], partitions: int) -> list[Sequence[tuple[int, int]]]:
    """As kronfluence divides a list: consecutive, the first ones longer by one."""
    size, longer = divmod(len(layers), partitions)
    starts = [place * size + min(place, longer) for place in range(partitions + 1)]
    return [layers[start:stop] for start, stop in pairwise(starts)]
