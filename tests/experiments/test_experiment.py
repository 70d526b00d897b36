"""Any number of models: what each is trained with, what is kept, and what the results hold. Nothing is trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ifguide.errors import InputError
from ifguide.experiments import experiment as module
from ifguide.experiments import models as models_module
from ifguide.experiments.experiment import Experiment
from ifguide.experiments.judging import Judging, judged_files
from ifguide.experiments.models import Model, check_models
from ifguide.experiments.stages import Stage, Stages
from ifguide.quickstart import pipeline
from ifguide.system.files import read_json, write_json, write_jsonl

CONFIGS = Path(pipeline.__file__).parent / "configs"
SHAPE, PENALTY = CONFIGS / "model.yml", CONFIGS / "penalty.yml"
MODELS = (
    Model("base", configs=(SHAPE,), needs=("data",)),
    Model("guided", "data/mask", (SHAPE, PENALTY), needs=("data",)),
    Model("weak", "data/mask", (SHAPE, PENALTY), {"penalty_lambda": 0.25}, ("data",)),
    Model("control", "data/random", (SHAPE, PENALTY), needs=("data",)),
)
NAMES = [model.name for model in MODELS]


class Job:
    """An experiment whose trainings and evaluations are only noted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.trained, self.judged = folder, [], []
        monkeypatch.setattr(models_module, "train", self._note("process"))
        monkeypatch.setattr(models_module, "train_here", self._note("here"))
        monkeypatch.setattr(module, "judge_models", self._judge)
        monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
        for name in ("prompts", "heldout"):
            write_jsonl(folder / f"{name}.jsonl", [{"text": name}])

    def _note(self, where: str) -> Any:
        def train(configs: list, log: Path, name: str, threads: int, say: Any) -> None:
            self.trained.append((name, where, threads))
            self.configs = configs
            saved = Path(yaml.safe_load(configs[-1].read_text())["save"]) / "hf"
            saved.mkdir(parents=True)
            write_json(saved / "config.json", {"trained": name})
            (saved / "model.safetensors").write_text(name)

        return train

    def _judge(self, models: dict, judging: Judging, folder: Path, threads: int, processes: int) -> dict:
        self.judged.append((list(models), threads, processes))
        folder.mkdir(exist_ok=True)
        row = {"id": 0, "subset": "toxic", "prompt": "p", "continuations": ["c"], "scores": {"lexicon": [0.5]}}
        for name in models:
            for path in judged_files(folder, name):
                write_jsonl(path, [row])
        return {name: {"perplexity": float(len(name))} for name in models}

    def run(self, models: tuple[Model, ...] = MODELS, one_process: bool = False, **keys: Any) -> dict[str, Any]:
        stages = Stages(self.folder, lambda line: None)
        experiment = Experiment(stages, models, {"seed": 1, **keys}, lambda line: None, one_process)
        stages.run(Stage("data", lambda: None, {}))
        experiment.train(models[0].name)
        experiment.train(*(model.name for model in models[1:]))
        judging = Judging(self.folder / "prompts.jsonl", self.folder / "heldout.jsonl", "lexicon")
        judged = experiment.judge(judging)

        def page(results: dict[str, Any]) -> Stage:
            assert read_json(self.folder / "results.json") == results
            return Stage("report", lambda: None, {}, ("evaluation",))

        results = experiment.finish({**judged, "seed": 1}, page)
        experiment.record({"output": self.folder, "seed": 1}, ["prompts.jsonl", "missing.jsonl"], 2.5)
        return results


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, monkeypatch)


def overlay(job: Job, name: str) -> dict[str, Any]:
    return yaml.safe_load((job.folder / f"configs/{name}.yml").read_text())


def test_four_models_are_trained_judged_and_in_the_results(job: Job) -> None:
    results = job.run()
    assert sorted(job.trained) == sorted((name, "process", 8 if name == "base" else 4) for name in NAMES)
    assert job.judged == [(NAMES, 4, 2)]
    stages = ["data", *(f"model {name}" for name in NAMES), "evaluation", "report"]
    assert list(results) == [*NAMES, "seed", "seconds"] and sorted(results["seconds"]) == sorted(stages)
    assert results["weak"] == {"perplexity": 4.0} and read_json(job.folder / "results.json") == results
    rows = (job.folder / "generations.jsonl").read_text().splitlines()
    assert len(rows) == 4 and '"model": "control"' in rows[3] and '"toxicity": [0.5]' in rows[3]
    record = read_json(job.folder / "run.json")
    assert record["settings"] == {"output": str(job.folder), "seed": 1} and list(record["inputs"]) == ["prompts.jsonl"]


def test_a_model_is_trained_with_its_own_penalties_and_keys(job: Job) -> None:
    job.run(MODELS[:3])
    base, guided, weak = (overlay(job, name) for name in ("base", "guided", "weak"))
    assert base == {"seed": 1, "save": str(job.folder / "checkpoints/base")}
    assert guided == base | {
        "save": str(job.folder / "checkpoints/guided"),
        "penalty_data_path": str(job.folder / "data/mask"),
    }
    assert weak == guided | {"save": str(job.folder / "checkpoints/weak"), "penalty_lambda": 0.25}
    assert job.configs[:-1] == [SHAPE, PENALTY]
    assert read_json(job.folder / "models/weak/config.json") == {"trained": "weak"}


def test_a_model_more_trains_that_model_alone(job: Job) -> None:
    job.run(MODELS[:2])
    job.trained.clear(), job.judged.clear()
    job.run(MODELS[:2])
    assert not job.trained and not job.judged
    job.run(MODELS[:3])
    assert [name for name, *_ in job.trained] == ["weak"] and job.judged == [(["base", "guided", "weak"], 4, 2)]


def test_a_toy_trains_twice_whatever_the_number_of_models(job: Job) -> None:
    job.run(one_process=True)
    assert [(name, where) for name, where, _ in job.trained] == [("base", "process"), ("guided", "here")]
    assert job.judged == [(NAMES, 4, 0)]
    for name, trained in zip(NAMES, ("base", "guided", "guided", "guided")):
        assert read_json(job.folder / f"models/{name}/config.json") == {"trained": trained}


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ([], "needs at least one model"),
        (["base", "base"], "two models are named 'base'"),
        (["a/b"], "model name 'a/b'"),
        ([".hidden"], "model name '.hidden'"),
        ([""], "model name ''"),
    ],
)
def test_models_that_cannot_be_told_apart(names: list[str], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        check_models([Model(name) for name in names])
