"""The parameters of Algorithm 1 (M3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifguide.config.options import option
from ifguide.errors import InputError


@dataclass(frozen=True)
class SelectionSettings:
    """Parameters of Algorithm 1; the defaults are the paper's.

    Attributes:
        threshold_quantile: q in [0, 1); tokens with a score above the q-quantile are toxic.
        window: w, neighbours added on each side of a toxic token, inside its document.
        max_fraction: budget L as a share of all tokens; exclusive with ``max_tokens``.
        max_tokens: budget L in tokens.
        unit_tokens: longest ranking unit, in tokens; longer documents are ranked in pieces.
        include_eod: count and select end-of-document tokens too.
    """

    threshold_quantile: float = option(
        0.99, metavar="Q", help="tokens above this quantile of all scores are toxic (default: 0.99)"
    )
    window: int = option(1, metavar="W", help="neighbours added on each side of a toxic token (default: 1)")
    max_fraction: float | None = option(
        0.02, metavar="F", one_of="budget", help="budget as a share of tokens (default: 0.02)"
    )
    max_tokens: int | None = option(None, metavar="N", one_of="budget", help="budget in tokens")
    unit_tokens: int = option(
        2048, metavar="U", help="longer documents are ranked in pieces of this many tokens (default: 2048)"
    )
    include_eod: bool = option(False, help="count and select end-of-document tokens too")

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.threshold_quantile < 1:
            faults.append(f"threshold quantile must be in [0, 1), got {self.threshold_quantile}")
        if self.window < 0:
            faults.append(f"window must be at least 0, got {self.window}")
        if self.unit_tokens < 1:
            faults.append(f"unit tokens must be at least 1, got {self.unit_tokens}")
        if (self.max_fraction is None) == (self.max_tokens is None):
            faults.append("give exactly one of max fraction and max tokens")
        if self.max_fraction is not None and not 0 <= self.max_fraction <= 1:
            faults.append(f"max fraction must be in [0, 1], got {self.max_fraction}")
        if self.max_tokens is not None and self.max_tokens < 0:
            faults.append(f"max tokens must be at least 0, got {self.max_tokens}")
        if faults:
            raise InputError("; ".join(faults))

    def budget(self, num_tokens: int) -> int:
        """L in tokens (rounded down)."""
        if self.max_tokens is not None:
            return self.max_tokens
        assert self.max_fraction is not None
        return int(np.floor(self.max_fraction * num_tokens))
