"""What a method decided, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.selection import Span

# the mask codes of a chunk
Paint = Callable[[Span], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method decided.

    Attributes:
        paint: the mask.
        behaviours: by behaviour name: ``threshold``, ``counts``, ``parameters``.
        centres: by behaviour: ascending global positions of the toxic tokens that the budget admits, int64[C].
        dropped: ascending numbers of the documents that document-level removal drops; None for other methods.
        shortfall: why less than the budget is selected and what changes it, a line for each behaviour that is below.
        span_scores: the score datasets that rank or restrict spans beside those of the behaviours, as a sidecar names
            them.
    """

    paint: Paint
    behaviours: dict[str, dict[str, Any]]
    centres: list[NDArray[np.int64]]
    dropped: NDArray[np.int64] | None = None
    shortfall: list[str] = field(default_factory=list)
    span_scores: list[dict[str, Any]] = field(default_factory=list)
