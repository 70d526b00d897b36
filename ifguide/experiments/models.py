"""The models of an experiment: a list of training runs, and the stage that makes one of them.

All models share data, initialisation, sample order, steps and schedule; what sets one apart is its entry in the list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.experiments.stages import Stage
from ifguide.experiments.training import drop_weights, publish_model, train, train_here, write_overlay
from ifguide.system.children import Children
from ifguide.system.files import hash_file


@dataclass(frozen=True)
class Model:
    """One training run.

    Attributes:
        name: of its files, and of its part of the results.
        penalty_data: prefix of its penalties, relative to the experiment's folder; None trains without a penalty.
        configs: configuration files, in order; the keys below come on top.
        keys: training keys of its own, beside those that all models share.
        needs: stages whose outputs its training reads.
    """

    name: str
    penalty_data: str | None = None
    configs: tuple[Path, ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """Name of the stage that makes it."""
        return f"model {self.name}"

    def folder(self, experiment: Path) -> Path:
        """Its Hugging Face folder."""
        return experiment / "models" / self.name

    def training_keys(self, experiment: Path, shared: Mapping[str, Any]) -> dict[str, Any]:
        """What its configuration adds to ``configs``; its own keys win over ``shared``."""
        keys = {**shared, **self.keys, "save": str(experiment / "checkpoints" / self.name)}
        if self.penalty_data is not None:
            keys["penalty_data_path"] = str(experiment / self.penalty_data)
        return keys


@dataclass(frozen=True)
class Way:
    """How a model is trained.

    Attributes:
        threads: CPU threads.
        here: in this process instead of one of its own.
        copy_of: name of a model of this job whose result is taken instead; for a toy.
        children: the commands of the job, of which it is one.
        keeps_weights: whether its checkpoint stays beside the published folder.
    """

    threads: int
    here: bool = False
    copy_of: str | None = None
    children: Children | None = None
    keeps_weights: bool = True


def check_models(models: Sequence[Model]) -> None:
    """
    Raises:
        InputError: no models, two of one name, or a name that is no name of a file.
    """
    names = [model.name for model in models]
    if not names:
        raise InputError("an experiment needs at least one model")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two models are named '{name}': give each model a name of its own")
        if not name or name.startswith(".") or Path(name).name != name:
            raise InputError(f"model name '{name}': it names files, so it cannot be empty, hidden or hold a '/'")


def model_stage(model: Model, folder: Path, shared: Mapping[str, Any], way: Way, say: Callable[[str], None]) -> Stage:
    """The stage that trains ``model`` and publishes it in ``models/NAME``.

    Args:
        folder: of the experiment.
        shared: training keys of all models.
        way: how it is trained, which changes nothing of what it becomes.
        say: hears the lines of the training.
    """
    keys = model.training_keys(folder, shared)
    overlay = folder / "configs" / f"{model.name}.yml"
    configs = [*model.configs, overlay]
    log = folder / "logs" / f"{model.name}.log"

    def work() -> dict[str, Any]:
        below = ", ".join(path.name for path in model.configs)
        header = f"What the {model.name} run adds to {below}" if below else f"All keys of the {model.name} run"
        write_overlay(overlay, header, keys)
        cost = None
        if way.children is not None:
            cost = train(configs, log, model.name, way.threads, say, way.children)
        elif way.copy_of is None:
            (train_here if way.here else train)(configs, log, model.name, way.threads, say)
        trained = folder / "checkpoints" / (way.copy_of or model.name)
        publish_model(trained, model.folder(folder))
        if not way.keeps_weights:
            drop_weights(trained)
        return asdict(cost) if cost else {}

    settings = {"configs": [hash_file(path) for path in model.configs], "keys": keys}
    outputs = [f"models/{model.name}/{name}" for name in ("config.json", "model.safetensors")]
    return Stage(model.stage, work, settings, model.needs, outputs)
