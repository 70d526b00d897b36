"""What is asked of build-pairs: every option once, with its default and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ifguide.config.options import option
from ifguide.errors import InputError

GENERATIONS, JSONL, CONTROL = "generations", "jsonl", "control"
SOURCES = (GENERATIONS, JSONL, CONTROL)


@dataclass(frozen=True)
class PairOptions:
    """Which pairs are taken.

    Attributes:
        toxic_threshold: a rejected continuation scores as much or more (of control: has no meaning).
        safe_threshold: a chosen continuation scores as much or less; of control both do.
        length_ratio: the longer one has at most so many times the words of the other.
        near: likeness (`ifguide.evaluation.pairs.near`) from which on texts are near-duplicates.
        most: pairs; those are drawn at random by ``seed``. None takes all.
        seed: of the draw, which does not depend on the order of the file.
    """

    toxic_threshold: float = option(
        0.9, metavar="X", help="a rejected continuation scores X or more (default: 0.9)"
    )  # fmt: skip
    safe_threshold: float = option(0.1, metavar="X", help="a chosen continuation scores X or less (default: 0.1)")
    length_ratio: float = option(
        1.5, metavar="R", help="the longer of the two has at most R times the words of the other (default: 1.5)"
    )
    near: float = option(
        0.8, metavar="J", help="pairs that share this much of their runs of words are one (default: 0.8)"
    )
    most: int | None = option(None, flags=["--max"], metavar="N", help="pairs, drawn at random (default: all)")
    seed: int = option(0, metavar="N", help="of the draw (default: 0)")

    def __post_init__(self) -> None:
        faults = []
        if not 0.0 <= self.safe_threshold < self.toxic_threshold <= 1.0:
            faults.append(
                f"--safe-threshold {self.safe_threshold} must be below --toxic-threshold {self.toxic_threshold}, both "
                "from 0 to 1"
            )
        if not self.length_ratio >= 1.0:
            faults.append(f"--length-ratio {self.length_ratio}: must be at least 1")
        if not 0.0 < self.near <= 1.0:
            faults.append(f"--near {self.near}: must be above 0 and at most 1")
        if self.most is not None and self.most < 1:
            faults.append(f"--max {self.most}: must be at least 1")
        if faults:
            raise InputError("; ".join(faults))


@dataclass(frozen=True)
class PairFiles:
    """What pairs are made of.

    Attributes:
        source: one of `SOURCES`.
        inputs: the file of the source.
        exclude: evaluation files, JSONL with "prompt" or "text".
        greedy: of control: the prompts' greedy continuations, as `ifguide generate` writes them.
        scorer: whose scores count; None where the file has those of one.
    """

    source: str
    inputs: str
    exclude: Sequence[str]
    greedy: str | None = None
    scorer: str | None = None
