"""The file of a plan: what it becomes, what can be changed on the command line, and every fault at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ifguide.errors import ConfigError
from ifguide.experiments.plans.plan import Plan, merged_with
from ifguide.experiments.plans.reading import read_plan

FILES = ("text", "toxic", "safe", "prompts", "held", "more")
PLAN: dict[str, Any] = {
    "seeds": [1, 2],
    "corpora": {
        "main": {
            "text": "text.jsonl",
            "toxic_queries": "toxic.jsonl",
            "safe_queries": "safe.jsonl",
            "prompts": "prompts.jsonl",
            "heldout": {"clean": "held.jsonl", "tweets": "more.jsonl"},
        }
    },
    "models": {"small": {"configs": ["shape.yml"], "keys": {"num_layers": 4, "train_epochs": None}}},
    "evaluation": {"scorers": ["lexicon"]},
    "methods": {
        "base": {},
        "influence": {"mask": {"max_fraction": 0.02}, "train": {"penalty_lambda": 0.2}},
        "rad": {"of": "influence", "decode": {"rad": "lexicon"}},
    },
    "sweeps": {"lambda": {"set": "train.penalty_lambda", "values": [0.0, 1.0], "methods": ["influence"]}},
}


class Files:
    """A folder with the files of a plan."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in FILES:
            (folder / f"{name}.jsonl").write_text('{"text": "x"}\n')
        (folder / "shape.yml").write_text("num_layers: 2\nhidden_size: 64\ntrain_epochs: 1\n")

    def read(self, changes: dict[str, Any] | None = None, *arguments: Any) -> Plan:
        path = self.folder / "plan.yml"
        path.write_text(yaml.safe_dump(merged_with(PLAN, changes or {}), sort_keys=False))
        return read_plan(path, *arguments)

    def faults(self, changes: dict[str, Any], *arguments: Any) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            self.read(changes, *arguments)
        return [fault.removeprefix(f"{self.folder / 'plan.yml'}: ") for fault in raised.value.faults]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_cells_are_methods_by_settings_by_seeds(files: Files) -> None:
    plan = files.read()
    cells = plan.cells()
    labels = ["base", "influence", "influence@lambda=0.0", "influence@lambda=1.0", "rad"]
    assert [(plan.label(cell), cell.seed) for cell in cells] == [(name, seed) for name in labels for seed in (1, 2)]
    changed = next(cell for cell in cells if cell.setting == "lambda=1.0")
    assert changed.definition == {"mask": {"max_fraction": 0.02}, "train": {"penalty_lambda": 1.0}}
    assert changed.curve == ("lambda", 1.0)
    assert plan.models["small"].keys == {"num_layers": 4, "hidden_size": 64}
    assert [path.name for path in plan.files()][:2] == ["plan.yml", "text.jsonl"]
    assert list(plan.corpora["main"].heldout) == ["clean", "tweets"]


def test_several_corpora_are_in_the_names(files: Files) -> None:
    plan = files.read({"corpora": {"other": PLAN["corpora"]["main"]}})
    assert plan.label(plan.cells()[0]) == "main/base" and len(plan.cells()) == 20


def test_changes_of_the_command_line(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine.jsonl").write_text("")
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = files.read(None, ["seeds=[7]", "corpora.main.text=mine.jsonl", "evaluation.samples=3"])
    assert plan.seeds == (7,) and plan.evaluation.samples == 3
    assert plan.corpora["main"].files["text"] == tmp_path / "elsewhere/mine.jsonl"
    assert "--set seeds: expected KEY=VALUE" in files.faults({}, ["seeds"])[0]
    assert "nothing below it" in files.faults({}, ["seeds.one=1"])[0]


def test_only_and_without(files: Files) -> None:
    assert list(files.read(None, [], ["rad"]).methods) == ["influence", "rad"]
    assert list(files.read(None, [], [], ["rad", "influence"]).methods) == ["base"]
    assert files.read(None, [], ["base"]).settings == {}
    assert files.faults({}, [], ["rda"]) == ["there is no method 'rda'; did you mean 'rad'?"]
    (fault,) = files.faults({}, [], [], ["influence"])
    assert "methods.rad.of: there is no other method 'influence'" in fault


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a key": ({"sedes": [1]}, "there is no key 'sedes'; did you mean 'seeds'?"),
    "a seed twice": ({"seeds": [1, 1]}, "seeds: [1, 1]: must be different"),
    "a file": ({"corpora": {"main": {"text": "no.jsonl"}}}, "say where it is with --set corpora.main.text=FILE"),
    "what is needed": ({"corpora": {"main": {"prompts": None}}}, "corpora.main: needs prompts"),
    "no judge": ({"evaluation": {"scorers": []}}, "evaluation.scorers: needs a list of scorers"),
    "a judge of nobody": ({"evaluation": {"scorers": ["judge"]}}, "judge is that of a corpus with source: quickstart"),
    "samples": ({"evaluation": {"samples": 0}}, "evaluation.samples: 0: must be"),
    "an objective": ({"methods": {"x": {"train": {"objective": "dop"}}}}, "methods.x: objective dop is none of lm"),
    "a training key": (
        {"methods": {"x": {"train": {"penalty_lamda": 1}}}}, "no key 'penalty_lamda'; did you mean 'penalty_lambda'?",
    ),
    "of nothing": ({"methods": {"x": {"of": "bsae"}}}, "methods.x.of: there is no other method 'bsae'; did you mean"),
    "of a decoding": ({"methods": {"x": {"of": "rad"}}}, "methods.x.of: rad has no model of its own"),
    "of and a mask": ({"methods": {"x": {"of": "base", "mask": {}}}}, "leave out mask"),
    "two ways": ({"methods": {"x": {"mask": {}, "filter": {}}}}, "methods.x: give one of mask, filter and tags"),
    "a model": ({"methods": {"x": {"model": "smal"}}}, "methods.x.model: there is no model 'smal'; did you mean"),
    "a name": ({"methods": {"a/b": {}}}, "'a/b' is no name for a method"),
    "a sweep of nobody": ({"sweeps": {"s": {"set": "train.x", "values": [1]}}}, "sweeps.s: needs methods"),
    "a sweep of nothing": ({"sweeps": {"s": {"methods": ["base"]}}}, "sweeps.s: needs set"),
    "a tokenizer": ({"tokenizer": {"vocab_size": 3, "type": "HFTokenizer"}}, "tokenizer: needs vocab_size"),
    "a number as text": ({"train": {"min_lr": "1e-5"}}, "YAML reads 1e-5 as text"),
    "no mapping": ({"methods": {"x": 3}}, "methods.x: must hold `key: value` lines, not 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_its_place(files: Files, name: str) -> None:
    changes, told = FAULTS[name]
    assert any(told in fault for fault in files.faults(changes)), files.faults(changes)


def test_all_faults_at_once(files: Files) -> None:
    changes = merged_with(FAULTS["a key"][0], FAULTS["samples"][0])
    assert len(files.faults(changes)) == 2
