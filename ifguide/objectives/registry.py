"""The objectives by the value of the YAML key ``objective``.

A builder imports what it builds when it is called: the launcher checks names, and has no use for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ifguide.objectives.keys import DPO, LM, NPO, REPO, RMU, repo_labels, repo_warmup, rmu_layer

if TYPE_CHECKING:
    from ifguide.objectives.base import Objective

Builder = Callable[[Any, bool], "Objective"]
"""(the training configuration, whether a training dataset has a penalty mask) -> the objective."""


def _language_modelling(config: Any, penalised: bool) -> Objective:
    from ifguide.objectives.cross_entropy import CrossEntropy
    from ifguide.objectives.penalised import Penalised

    return Penalised(config) if penalised else CrossEntropy()


def _dpo(config: Any, penalised: bool) -> Objective:
    from ifguide.objectives import dpo

    return dpo.DPO(config.dpo_beta)


def _npo(config: Any, penalised: bool) -> Objective:
    from ifguide.objectives import npo

    return npo.NPO(config.npo_beta, config.npo_retain, config.npo_retain_data)


def _rmu(config: Any, penalised: bool) -> Objective:
    from ifguide.objectives import rmu

    layer = rmu_layer(config, config.num_layers)
    return rmu.RMU(layer, config.rmu_coefficient, config.rmu_alpha, config.rmu_retain_data, config.rmu_trains)


def _repo(config: Any, penalised: bool) -> Objective:
    from ifguide.objectives import repo
    from ifguide.objectives.penalised import Penalised

    options = repo.REPOOptions(
        weight=config.repo_lambda,
        schedule=config.repo_schedule,
        layer=config.repo_layer or config.num_layers,
        retain=config.repo_retain,
        labels=repo_labels(config),
        detach_benign=config.repo_detach_benign,
        confusion=config.repo_confusion,
        discriminator=config.repo_discriminator,
        discriminator_lr=config.repo_discriminator_lr,
        discriminator_clip=config.repo_discriminator_clip,
        warmup_iters=repo_warmup(config),
    )
    return repo.REPO(options, Penalised(config) if penalised and config.repo_penalty else None)


OBJECTIVES: dict[str, Builder] = {LM: _language_modelling, DPO: _dpo, NPO: _npo, RMU: _rmu, REPO: _repo}


def build_objective(config: Any, penalised: bool) -> Objective:
    """The objective that ``config.objective`` names.

    Args:
        config: the training configuration, with the keys of the objective.
        penalised: whether a training dataset comes with a penalty mask.
    """
    return OBJECTIVES[config.objective](config, penalised)
