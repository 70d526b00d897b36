"""The parameters of Algorithm 1 (M3), of selection by passages (M3b) and of tokens within them (M3c)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ifguide.config.options import option
from ifguide.data.passages.bits import LINE_END, SENTENCE_END
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


LINE, SENTENCE, WINDOW = "line", "sentence", "window"
_ENDS = {LINE: LINE_END, SENTENCE: SENTENCE_END}

EACH, GLOBAL = "each", "global"
WITHIN_RULES = (EACH, GLOBAL)
HIGHEST, RANDOM, LOWEST = "highest", "random", "lowest"
WITHIN_ORDERS = (HIGHEST, RANDOM, LOWEST)

# shorter lines and sentences are left out where nothing shrinks their means: one token alone would lead every ranking
SHORTEST = 3


@dataclass(frozen=True)
class PassageSettings:
    """What (M3b) ranks, and by what.

    Attributes:
        kind: ``line``, ``sentence``, or ``window``: each token, ranked by the mean around it.
        radius: of a window, W: neighbours on each side inside the document.
        shrink: κ: the score of a passage is Σs / (n + κ).
        positive: whether passages with a score of 0 or less are never selected, as is right for influence.
    """

    kind: str
    radius: int = 0
    shrink: float = 0.0
    positive: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shrink) and self.shrink >= 0):
            raise InputError(f"--shrink {self.shrink}: must be a number of at least 0")

    @classmethod
    def parse(cls, text: str, shrink: float = 0.0, positive: bool = True) -> PassageSettings:
        """Of ``line``, ``sentence`` or ``window:W``.

        Raises:
            InputError: none of them.
        """
        kind, colon, radius = text.partition(":")
        if text in _ENDS:
            return cls(text, 0, shrink, positive)
        if kind == WINDOW and colon and radius.isdecimal():
            return cls(kind, int(radius), shrink, positive)
        raise InputError(f"--span {text}: must be token, line, sentence or window:W, as in window:10")

    def __str__(self) -> str:
        return f"{self.kind}:{self.radius}" if self.kind == WINDOW else self.kind

    @property
    def end_bit(self) -> int:
        """The bit of a boundary that ends a passage."""
        return _ENDS[self.kind]

    @property
    def fewest(self) -> int:
        """Tokens that a passage needs to be ranked."""
        return 1 if self.shrink or self.kind == WINDOW else SHORTEST


@dataclass(frozen=True)
class WithinSettings:
    """Which tokens of the selected passages (M3c) takes.

    Attributes:
        spans: A, the passages' share of all tokens.
        share: φ, the share of the passages' tokens.
        rule: ``each``: ⌈φ n⌉ tokens of every passage; ``global``: φ A N tokens of all passages together.
        order: ``highest`` scores, or the controls ``random`` and ``lowest``.
        seed: of ``random``.
    """

    spans: float
    share: float
    rule: str = EACH
    order: str = HIGHEST
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.spans <= 1:
            faults.append(f"--span-fraction {self.spans:g}: must be above 0 and at most 1")
        if not 0 < self.share <= 1:
            faults.append(f"--tokens-within {self.share:g}: must be above 0 and at most 1")
        if self.rule not in WITHIN_RULES:
            faults.append(f"--within-rule {self.rule}: must be one of {', '.join(WITHIN_RULES)}")
        if self.order not in WITHIN_ORDERS:
            faults.append(f"--tokens-within-order {self.order}: must be one of {', '.join(WITHIN_ORDERS)}")
        if faults:
            raise InputError("; ".join(faults))

    @property
    def exact_share(self) -> Fraction:
        """φ as it was written: 0.7 of 10 tokens are 7, which the float next to 0.7 would round to 8."""
        return exact(self.share)

    def span_budget(self, num_tokens: int) -> int:
        """⌊A N⌋"""
        return math.floor(exact(self.spans) * num_tokens)

    def budget(self, num_tokens: int) -> int:
        """⌊φ A N⌋"""
        return math.floor(self.exact_share * exact(self.spans) * num_tokens)


def exact(number: float) -> Fraction:
    """A share as its digits say it, with a denominator of at most 10⁹: the float next to 1/3 means 1/3."""
    return Fraction(repr(float(number))).limit_denominator(10**9)
