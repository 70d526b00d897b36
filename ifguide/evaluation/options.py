"""Which scored texts become queries: every option once, with its default and its text.

Nothing here needs torch, so that a parser can be filled without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifguide.config.options import option
from ifguide.errors import InputError


@dataclass(frozen=True)
class QueryChoice:
    """Which texts are taken, and how many.

    Attributes:
        toxic_threshold: a completion that scores as much or more is toxic.
        safe_threshold: a completion that scores as much or less is safe.
        most: queries a set, drawn at random; None takes all.
        seed: of the draw, which does not depend on the order of the file.
    """

    toxic_threshold: float = option(0.9, metavar="X", help="from X on (default: 0.9)")
    safe_threshold: float = option(0.1, metavar="X", help="up to X (default: 0.1)")
    most: int | None = option(
        None, flags=["--max"], metavar="N", help="queries a set, drawn at random (default: all)"
    )  # fmt: skip
    seed: int = option(0, metavar="N", help="of the draw (default: 0)")

    def __post_init__(self) -> None:
        if not 0.0 <= self.safe_threshold < self.toxic_threshold <= 1.0:
            raise InputError(
                f"thresholds: safe ({self.safe_threshold}) must be below toxic ({self.toxic_threshold}), both from 0 "
                "to 1"
            )
        if self.most is not None and self.most < 1:
            raise InputError(f"max {self.most} must be at least 1")
