"""Retraining: nothing left out is the run itself, tokens left out are left out, and nothing is done twice."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from ifguide.errors import ConfigError, IFGuideError, InputError, MismatchError
from ifguide.validation.margin import load_and_measure
from ifguide.validation.retraining import Retrainer, Training, base_of
from ifguide.validation.run import open_run
from tests.validation.conftest import Case

NOTHING = np.zeros(0, np.int64)


def retrainer(case: Case, folder: Path, **changes: object) -> Retrainer:
    return replace(Retrainer(case.run, case.queries, folder, 1, 1, "cpu", quiet=True), **changes)  # type: ignore[arg-type]


def test_the_run_is_read_from_its_record(case: Case) -> None:
    run = case.run
    assert run.documents == (0, 81) and run.places == (0, int(case.tokens.starts[81]))
    assert run.iterations == 10 and run.batch_tokens == 8 * 16 and run.seed == 7 and (run.seconds or 0) > 0
    keys = run.keys_of(Path("there"), "mask", 9)
    assert keys["penalty_lambda"] == 0.0 and keys["penalty_data_path"] == "mask" and keys["seed"] == 9
    assert "eval_interval" not in keys and keys["save"] == "there"
    assert "penalty_lambda" not in run.keys_of(Path("there"), None, 9)


def test_the_products_own_command_without_tokens_is_the_run_bit_for_bit(case: Case, tmp_path: Path) -> None:
    """Processes of their own, two at a time: the run again, and with a mask that selects nothing."""
    run = retrainer(case, tmp_path, jobs=2, keep_models=True)
    found = run([base_of(7), Training("s7-empty", 7, NOTHING)])
    before = load_and_measure(case.run.model, case.queries, "cpu")
    assert found["s7-base"].likelihoods == before == found["s7-empty"].likelihoods
    weights, again = parameters(case.run.model), parameters(tmp_path / "models/s7-empty")
    assert weights.keys() == again.keys() and all(torch.equal(again[name], weights[name]) for name in weights)
    assert not list((tmp_path / "work").iterdir())
    assert "penalty: ascent, λ 0" in (tmp_path / "logs/s7-empty.log").read_text()


def test_tokens_left_out_have_no_loss(case: Case, here: list[str], tmp_path: Path) -> None:
    """With every token left out, nothing but weight decay moves the weights."""
    everything = np.arange(*case.run.places)
    run = retrainer(case, tmp_path, keep_models=True)
    run([Training("none", 7, everything)])
    from ifguide.engine.schedule import learning_rate
    from ifguide.validation.tail_patch import _settings

    settings = _settings(case.run)
    decay = np.prod([1 - 0.1 * learning_rate(settings, 10, i) for i in range(1, 11)])
    trained = parameters(tmp_path / "models/none")
    fresh = fresh_weights(case)
    for name, tensor in trained.items():
        factor = decay if tensor.dim() > 1 else 1.0
        torch.testing.assert_close(tensor, fresh[name] * float(factor), rtol=1e-5, atol=1e-7)


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one.detach() for name, one in AutoModelForCausalLM.from_pretrained(folder).named_parameters()}


def fresh_weights(case: Case) -> dict[str, torch.Tensor]:
    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.engine.model import build_model
    from ifguide.validation.tail_patch import _settings

    tokenizer = build_tokenizer("CharLevelTokenizer", None, None)
    return dict(build_model(_settings(case.run), tokenizer.vocab_size, tokenizer.eod).named_parameters())


def test_what_is_done_is_kept_and_anything_else_is_done_again(case: Case, here: list[str], tmp_path: Path) -> None:
    places = np.arange(100, 140)
    trainings = [base_of(7), Training("s7-k0000", 7, places)]
    first = retrainer(case, tmp_path)(trainings)
    assert len(here) == 2 and first["s7-base"].likelihoods != first["s7-k0000"].likelihoods
    assert retrainer(case, tmp_path)(trainings) == first and len(here) == 2
    record = tmp_path / "trained/s7-k0000.json"
    kept = json.loads(record.read_text())
    # a kill: no record, a half of a folder
    record.unlink()
    (tmp_path / "work/s7-k0000/run").mkdir(parents=True)
    again = retrainer(case, tmp_path)(trainings)
    assert len(here) == 3 and again["s7-k0000"].likelihoods == first["s7-k0000"].likelihoods
    # a damaged record, other tokens, another number of threads, other queries
    record.write_text("{")
    assert retrainer(case, tmp_path).kept(trainings[1]) is None
    record.write_text(json.dumps(kept))
    assert retrainer(case, tmp_path).kept(trainings[1]) is not None
    assert retrainer(case, tmp_path).kept(Training("s7-k0000", 7, places + 1)) is None
    assert retrainer(case, tmp_path).kept(Training("s7-k0000", 8, places)) is None
    assert retrainer(case, tmp_path, threads=2).kept(trainings[1]) is None
    other = replace(case.queries, toxic=case.queries.safe)
    assert retrainer(case, tmp_path, queries=other).kept(trainings[1]) is None
    mask = yaml.safe_load(json.dumps(case.run.keys_of(tmp_path, "m", 7)))
    assert mask["penalty_data_path"] == "m"


def test_a_training_that_fails_is_told_and_the_others_are_kept(
    case: Case, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ifguide.validation import retraining

    real = retraining.run_training

    def fails(command: list[str], log: Path, name: str, threads: int) -> None:
        if "k0001" in name:
            raise IFGuideError(f"{name} failed (exit 1, log {log}): out of memory")
        real(command, log, name, threads)

    monkeypatch.setattr(retraining, "run_training", fails)
    trainings = [Training(f"s7-k{k:04d}", 7, np.arange(20 + k, 60)) for k in range(3)]
    with pytest.raises(IFGuideError, match=r"retraining 's7-k0001' failed .*out of memory"):
        retrainer(case, tmp_path)(trainings)
    assert (tmp_path / "trained/s7-k0000.json").exists() and not (tmp_path / "trained/s7-k0001.json").exists()


def test_models_are_loaded_in_the_thread_that_asked(
    case: Case, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a model sets the default type of the whole process for a moment: two threads at it disturb each other."""
    from ifguide.validation import retraining

    threads = []

    def measure(*args: object) -> object:
        threads.append(threading.get_ident())
        return load_and_measure(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(retraining, "load_and_measure", measure)
    retrainer(case, tmp_path)([base_of(7), base_of(8)])
    assert threads == [threading.get_ident()] * 2


def edited(case: Case, folder: Path, **config: object) -> Path:
    """A copy of the run's folder whose record says something else."""
    shutil.copytree(case.folder / "run", folder, ignore=shutil.ignore_patterns("global_step*"))
    record = json.loads((folder / "run.json").read_text())
    for key, value in config.items():
        (record if key in ("engine", "training_seconds", "inputs") else record["config"])[key] = value
    if config.get("training_seconds", 1) is None:
        del record["training_seconds"]
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"engine": "neox"}, "another engine than the embedded one"),
        ({"lora_rank": 4}, "was trained with lora_rank"),
        ({"training_seconds": None}, "has not finished"),
        ({"penalty_data_path": "mask"}, "with a penalty mask"),
        ({"objective": "dpo"}, "objective dpo"),
        ({"data_path": None, "train_data_paths": ["a", "b"]}, "reads 2 training datasets"),
        ({"load": "/elsewhere"}, "continues the run in /elsewhere"),
        ({"data_path": "/nowhere/data"}, "/nowhere/data"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_refused(case: Case, tmp_path: Path, config: dict, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        open_run(edited(case, tmp_path / "run", **config))


def test_a_folder_of_no_run_and_changed_data_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run\.json"):
        open_run(tmp_path)
    record = json.loads((case.folder / "run/run.json").read_text())
    (prefix,) = record["inputs"]["tokens"]
    record["inputs"]["tokens"][prefix]["content_hash"] = "other"
    with pytest.raises(MismatchError, match="has changed since"):
        open_run(edited(case, tmp_path / "run", inputs=record["inputs"]))


def test_finetuning_starts_where_the_run_did(case: Case, tmp_path: Path) -> None:
    run = open_run(edited(case, tmp_path / "run", load=str(case.run.model), finetune=True))
    assert run.keys_of(tmp_path, None, 7)["load"] == str(case.run.model)
    again = open_run(edited(case, tmp_path / "again", load="run"))
    assert "load" not in again.keys_of(tmp_path, None, 7)
