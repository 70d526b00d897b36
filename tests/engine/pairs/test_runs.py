"""Whole runs of the objectives on pairs: as cheap, as exact and as easy to continue as language modelling."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.test_run import paths, same, weights
from tests.engine.tiny import deepy, killed_after_a_checkpoint, losses, read_log, write_configuration

Train = Callable[..., int]

OBJECTIVES: dict[str, dict[str, Any]] = {
    "dpo": {"objective": "dpo"},
    "npo": {"objective": "npo", "npo_retain_data": "text"},
    "rmu": {"objective": "rmu", "rmu_layer": 2},
    "repo": {"objective": "repo", "repo_warmup_iters": 2, "repo_lambda": 0.5},
}
NUMBERS = {
    "dpo": ("objective", "reward_accuracy", "reward_margin", "grad_norm"),
    "npo": ("objective", "forget", "retain", "grad_norm"),
    "rmu": ("objective", "forget", "retain", "grad_norm"),
    "repo": ("objective", "adversarial", "discriminator_accuracy", "retain", "grad_norm"),
}


def keys(corpus: Path, pairs: Path, name: str, **values: Any) -> dict[str, Any]:
    return paths(corpus, pairs_data_path=str(pairs), **OBJECTIVES[name], **values)


def told(folder: Path, number: str) -> list[float]:
    """The logged values; of an accuracy not the first, for at the reference every margin is a tie up to rounding."""
    return losses(folder, number)["accuracy" in number :]


@pytest.fixture(scope="module")
def start(corpus: Path, process_group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a model with weights of its own."""
    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.engine.arguments import TrainConfig
    from ifguide.engine.checkpoint import export
    from ifguide.engine.model import build_model
    from ifguide.engine.settings import resolve
    from tests.engine.tiny import MODEL

    settings = resolve(TrainConfig(**{**MODEL, **paths(corpus), "seed": 3}))
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    folder = tmp_path_factory.mktemp("start") / "hf"
    export(build_model(settings, tokenizer.vocab_size, tokenizer.eod), tokenizer, folder)
    return folder


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_learns_what_it_is_for(train: Train, corpus: Path, pairs: Path, tmp_path: Path, name: str) -> None:
    assert train(**keys(corpus, pairs, name, train_iters=12, save=str(tmp_path / "out"))) == 0
    out = tmp_path / "out"
    rows = [row for row in read_log(out) if "split" not in row]
    assert set(NUMBERS[name]) <= rows[0].keys()
    if name == "dpo":
        assert losses(out, "objective")[0] == pytest.approx(math.log(2), rel=1e-6)
        assert losses(out, "reward_accuracy")[-1] == 1.0 and losses(out, "objective")[-1] < 0.65
    elif name == "repo":
        assert losses(out, "adversarial")[0] == pytest.approx(math.log(2), rel=1e-6)
        assert losses(out, "grad_norm")[:2] == [0.0, 0.0] and losses(out, "lr")[:2] == [0.0, 0.0]
        assert losses(out, "grad_norm")[2] > 0 and losses(out, "lr")[2] > 0
        assert losses(out, "retain")[2] == 0 < losses(out, "retain")[-1]
    else:
        assert losses(out, "forget")[-1] < losses(out, "forget")[0] - 0.01
        if name == "npo":
            assert losses(out, "forget")[0] == pytest.approx(20 * math.log(2), rel=1e-6)
        else:
            assert losses(out, "retain")[0] == 0 < losses(out, "retain")[-1]
    record = json.loads((out / "run.json").read_text())
    assert list(record["inputs"]["pairs"]) == [str(pairs)]


@pytest.mark.parametrize(("name", "stage", "precision"), [
    ("dpo", 0, "fp32"), ("npo", 1, "bfloat16"), ("rmu", 2, "fp32"), ("repo", 0, "fp32"), ("repo", 2, "bfloat16"),
])  # fmt: skip
def test_resumed_is_uninterrupted(
    train: Train, corpus: Path, pairs: Path, start: Path, tmp_path: Path, name: str, stage: int, precision: str
) -> None:
    """Fine-tuning, cut in the middle (repo: in the warm-up too); the same to the bit, with the same reference."""
    common = keys(
        corpus, pairs, name, zero_optimization={"stage": stage}, precision=precision, attention_dropout=0.1,
        train_micro_batch_size_per_gpu=4, extra_save_iters=[1],
    )  # fmt: skip
    begins = {"load": str(start), "finetune": True}
    assert train(**common, **begins, save=str(tmp_path / "whole")) == 0
    parts = {"save": str(tmp_path / "parts")}
    continued = {**parts, "load": str(tmp_path / "parts")}
    assert train(**common, **begins, **parts, exit_interval=1) == 0
    assert train(**common, **continued, exit_interval=4) == 0
    assert train(**common, **continued) == 0
    for number in (*NUMBERS[name], "lr"):
        assert losses(tmp_path / "parts", number) == losses(tmp_path / "whole", number), number
    assert same(tmp_path / "parts", tmp_path / "whole")
    from safetensors.torch import load_file

    reference, initial = (load_file(folder / "model.safetensors") for folder in (tmp_path / "parts/reference", start))
    assert all(torch.equal(reference[key], initial[key].to(reference[key].dtype)) for key in initial)
    assert not same(tmp_path / "parts", start.parent)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulation_and_zero_change_nothing(
    train: Train, corpus: Path, pairs: Path, tmp_path: Path, name: str
) -> None:
    runs = {
        "plain": {},
        "accumulated": {"train_micro_batch_size_per_gpu": 2},
        "ZeRO 2": {"zero_optimization": {"stage": 2}},
    }
    for run, values in runs.items():
        assert train(**keys(corpus, pairs, name, save=str(tmp_path / run), **values)) == 0
        for number in NUMBERS[name]:
            found, plain = told(tmp_path / run, number), told(tmp_path / "plain", number)
            assert found == pytest.approx(plain, rel=1e-5, abs=1e-6), (run, number)


@pytest.mark.parametrize("name", ["dpo", "repo"])
def test_two_processes_train_as_one(train: Train, corpus: Path, pairs: Path, tmp_path: Path, name: str) -> None:
    # Adam's first step is the gradient's sign where the gradient is far above eps: with 1e-8, rounding decides it for
    # what has no gradient in exact arithmetic, such as the bias of attention's keys
    optimizer = {"type": "Adam", "params": {"lr": 0.01, "eps": 0.0001}}
    common = keys(corpus, pairs, name, optimizer=optimizer, eval_iters=0)
    assert train(**common, save=str(tmp_path / "one")) == 0
    both = {**common, "save": "two", "num_gpus": 2}
    done = deepy(write_configuration(tmp_path, **both), tmp_path)
    assert done.returncode == 0, done.stderr
    for number in NUMBERS[name]:
        found, plain = told(tmp_path / "two", number), told(tmp_path / "one", number)
        assert found == pytest.approx(plain, rel=1e-5, abs=1e-6), number


def test_killed_and_resumed_is_uninterrupted(corpus: Path, pairs: Path, tmp_path: Path) -> None:
    """SIGKILL of REPO's launcher and worker; the same command finishes the run, discriminator and all."""
    values = keys(corpus, pairs, "repo", train_iters=200, checkpoint_factor=20, eval_iters=0, repo_retain="ce")
    runs = {name: write_configuration(tmp_path / name, **values, save="out", load="out") for name in ("a", "b")}
    assert deepy(runs["a"], tmp_path / "a").returncode == 0
    out = tmp_path / "b" / "out"
    assert 0 < killed_after_a_checkpoint(runs["b"], tmp_path / "b", out) < 200
    assert deepy(runs["b"], tmp_path / "b").returncode == 0
    for number in ("objective", "adversarial", "retain"):
        assert losses(out, number) == losses(tmp_path / "a" / "out", number)
    assert same(out, tmp_path / "a" / "out")


# ---- masks ----


def masked(corpus: Path, **values: Any) -> dict[str, Any]:
    return paths(corpus, penalty_data_path=str(corpus / "mask"), penalty_lambda=0.3, **values)


def test_stacked_at_lambda_zero_it_is_the_penalised_run(
    train: Train, corpus: Path, pairs: Path, tmp_path: Path
) -> None:
    """repo (M4) + L_ret + L_adv at λ 0 without a retain term: the run without it, to the bit, and its log."""
    assert train(**masked(corpus, save=str(tmp_path / "m4"))) == 0
    zero = {"objective": "repo", "repo_lambda": 0.0, "repo_retain": "none"}
    for name, values in {"mask": {}, "pairs": {"pairs_data_path": str(pairs)}}.items():
        assert train(**masked(corpus, save=str(tmp_path / name), **zero, **values)) == 0
        assert same(tmp_path / name, tmp_path / "m4")
        for number in ("lm_loss", "penalty_ce", "penalty_fraction", "grad_norm", "lr"):
            assert losses(tmp_path / name, number) == losses(tmp_path / "m4", number), number
        held_out = [[row["lm_loss"] for row in read_log(tmp_path / run) if "split" in row] for run in (name, "m4")]
        assert held_out[0] == held_out[1]
        assert losses(tmp_path / name, "objective") == pytest.approx(losses(tmp_path / "m4", "objective"), rel=1e-6)


@pytest.mark.parametrize("values", [
    {"repo_retain": "kl", "zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 2},
    {"repo_retain": "ce", "repo_penalty": False, "precision": "bfloat16"},
    {"repo_retain": "none", "repo_confusion": True, "repo_discriminator": "mlp", "repo_detach_benign": True},
], ids=["stacked", "labels only", "confusion"])  # fmt: skip
def test_masks_in_place_of_pairs(train: Train, corpus: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    common = masked(corpus, objective="repo", repo_lambda=0.5, repo_warmup_iters=2)
    if values.get("repo_penalty") is False:
        common.pop("penalty_lambda")
    assert train(**common, **values, save=str(tmp_path / "whole")) == 0
    parts = {"save": str(tmp_path / "parts")}
    assert train(**common, **values, **parts, exit_interval=3) == 0
    assert train(**common, **values, **parts, load=str(tmp_path / "parts")) == 0
    assert same(tmp_path / "parts", tmp_path / "whole")
    rows = [row for row in read_log(tmp_path / "whole") if "split" not in row]
    assert ("penalty_ce" in rows[0]) == ("repo_penalty" not in values)
    assert rows[0]["adversarial"] == pytest.approx(math.log(2), rel=1e-6) and rows[1]["lr"] == 0 < rows[2]["lr"]
    assert all(math.isfinite(row["objective"]) for row in rows)


def test_pairs_with_faults_end_in_their_lines(
    train: Train, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b"}\n')
    assert train(**keys(corpus, path, "dpo", save=str(tmp_path / "out"))) == 2
    assert capsys.readouterr().err == f'train: pairs {path} line 1: has no "rejected"\n'
    assert not (tmp_path / "out").exists()


def test_weights_of_a_run_on_pairs_have_the_precision_of_the_run(
    train: Train, corpus: Path, pairs: Path, tmp_path: Path
) -> None:
    assert train(**keys(corpus, pairs, "repo", save=str(tmp_path / "out"), precision="bfloat16")) == 0
    assert {value.dtype for value in weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert losses(tmp_path / "out", "retain")[2] == 0.0  # a reference of the same precision
