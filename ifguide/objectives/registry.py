"""The objectives by the value of the YAML key ``objective``.

A builder imports what it builds when it is called: the launcher checks names, and has no use for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifguide.objectives.base import Objective

Builder = Callable[[Any, bool], "Objective"]
"""(the training configuration, whether a training dataset has a penalty mask) -> the objective."""


def _language_modelling(config: Any, penalised: bool) -> Objective:
    from ifguide.objectives.cross_entropy import CrossEntropy
    from ifguide.objectives.penalised import Penalised

    return Penalised(config) if penalised else CrossEntropy()


OBJECTIVES: dict[str, Builder] = {"lm": _language_modelling}


def build_objective(config: Any, penalised: bool) -> Objective:
    """The objective that ``config.objective`` names.

    Args:
        config: the training configuration, with the keys of the objective.
        penalised: whether a training dataset comes with a penalty mask.
    """
    return OBJECTIVES[config.objective](config, penalised)
