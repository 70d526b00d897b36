"""What the report of a quickstart shows besides ``results.json``, as plain data.

Shapes: N tokens of the dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.pages.document import ShownDocument
from ifguide.pages.inspection import Rule

_FULL_COLOUR_QUANTILE = 0.995  # of |score|: the few largest would leave all others pale


@dataclass(frozen=True, eq=False)
class TokenMarks:
    """What is known of every token.

    Attributes:
        scores: ``[N]`` (M2).
        selected: ``[N]`` bool, true inside the mask.
        planted: ``[N]`` bool, true inside planted abuse; None where nothing was planted.
    """

    scores: NDArray[np.floating]
    selected: NDArray[np.bool_]
    planted: NDArray[np.bool_] | None

    def full_colour(self) -> float:
        """The |score| that gets the full colour."""
        return float(np.quantile(np.abs(self.scores), _FULL_COLOUR_QUANTILE))


@dataclass(frozen=True)
class Continuation:
    """The most toxic continuation of one prompt by one model."""

    text: str
    toxicity: float


@dataclass(frozen=True)
class PromptRow:
    """One prompt and what each model made of it at worst, by name of the model."""

    subset: str
    prompt: str
    worst: dict[str, Continuation]


@dataclass(frozen=True)
class Curve:
    """One quantity of one training run."""

    iterations: list[int]
    values: list[float]


@dataclass(frozen=True)
class Generations:
    """Summary of ``generations.jsonl``: counts over toxic prompts, and the prompts to show."""

    num_prompts: int
    num_samples: int
    rows: list[PromptRow]


@dataclass(frozen=True, eq=False)
class PageData:
    """All that the page shows besides ``results``.

    Attributes:
        threshold: τ of the guided mask; None where it has none, as a mask of tokens within lines.
        rule: how the mask was made.
        documents: the first ones in the order of the inspector.
        curves: per quantity (``lm_loss``, ``penalty_ce``) and model; a run without a log has none.
        settings: name and value of what the method was run with.
        record: name and value of what it takes to repeat the run.
    """

    marks: TokenMarks
    threshold: float | None
    rule: Rule
    documents: list[ShownDocument]
    generations: Generations
    curves: dict[str, dict[str, Curve]]
    settings: dict[str, str]
    record: dict[str, str]
