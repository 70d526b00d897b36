"""Whole runs: through the launcher as users start them, and in this process for what only the numbers tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.data.indexed import TokenDataset
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.datasets import open_training_data, pack
from ifguide.engine.settings import resolve
from tests.engine.tiny import deepy, killed_after_a_checkpoint, losses, read_log, write_configuration

Train = Callable[..., int]


def paths(corpus: Path, **values: Any) -> dict[str, Any]:
    return {"data_path": str(corpus / "data"), "split": "80,10,10", "checkpoint_factor": 100, **values}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "hf" / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def launched(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A penalised run of one process, started as users do; its output is in `out`."""
    folder = tmp_path_factory.mktemp("launched")
    arguments = write_configuration(
        folder, **paths(corpus, penalty_data_path=str(corpus / "mask"), save="out", tensorboard_dir="tb")
    )
    result = deepy(arguments, folder)
    assert result.returncode == 0, result.stderr
    (folder / "stdout").write_text(result.stdout)
    return folder


def test_a_run_leaves_what_it_promises(launched: Path) -> None:
    out = launched / "out"
    assert (out / "latest").read_text() == "global_step6"
    assert (out / "global_step6").is_dir()
    assert not list(out.glob(".*")), "temporary files are left"
    assert list((launched / "tb").iterdir())
    lines = (launched / "stdout").read_text().splitlines()
    assert lines[0] == "engine: embedded (1 process)"
    record = json.loads((out / "run.json").read_text())
    assert record["command"][1:3] and record["engine"] == "embedded"
    assert record["config"]["penalty_lambda"] == 1.0
    assert len(record["inputs"]["tokens"]) == len(record["inputs"]["penalties"]) == 1


def test_a_run_says_what_it_will_do_and_where_the_model_is(launched: Path, corpus: Path) -> None:
    lines = (launched / "stdout").read_text().splitlines()
    selected, tokens = (int((codes := np.fromfile(corpus / "mask.bin", np.uint8)).sum()), len(codes))
    assert selected > 100
    first = next(place for place, line in enumerate(lines) if line.startswith("iteration "))
    said = lines[:first]
    assert "penalty: ascent, λ 1, without a warm-up" in said
    share = f"{selected:,} of {tokens:,} tokens selected ({selected / tokens:.2%}) (binary)"
    assert f"mask {corpus / 'mask'} of {corpus / 'data'}: {share}" in said
    assert lines[-2] == "model: out/hf (Hugging Face folder); to continue it: load out"
    assert lines[-1] == "next: ifguide generate --model out/hf --prompts PROMPTS.jsonl --output out/said.jsonl"


def test_a_run_without_a_penalty_or_a_folder_says_so(
    train: Train, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(**paths(corpus, checkpoint_factor=None)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "penalty: none (no mask is configured)" in lines
    assert lines[-1] == "nothing was kept: the configuration names no folder to save into"


def test_the_log_has_every_number(launched: Path) -> None:
    rows = read_log(launched / "out")
    training = [row for row in rows if "split" not in row]
    assert [row["iteration"] for row in training] == [1, 2, 3, 4, 5, 6]
    for row in training:
        # binary mask, λ = 1: objective = (1 - p) lm_loss - p penalty_ce with p the selected share
        share = row["penalty_fraction"]
        assert row["objective"] == pytest.approx((1 - share) * row["lm_loss"] - share * row["penalty_ce"], rel=1e-6)
        assert 0.05 < share < 0.2 and row["lr"] > 0 and row["grad_norm"] > 0
    assert [(row["iteration"], row["split"]) for row in rows if "split" in row] == [
        (3, "valid"),
        (6, "valid"),
        (6, "test"),
    ]


def test_the_export_is_the_trained_model(launched: Path, process_group: None) -> None:
    """Its loss on the validation set, computed with transformers alone, is the logged one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(launched / "out" / "hf").eval()
    assert AutoTokenizer.from_pretrained(launched / "out" / "hf")("abc")["input_ids"] == [97, 98, 99]
    last = [row for row in read_log(launched / "out") if row.get("split") == "valid"][-1]
    record = json.loads((launched / "out" / "run.json").read_text())
    settings = resolve(TrainConfig(**record["config"]))
    tokenizer = build_tokenizer(settings.tokenizer_type, None)
    # the order of documents is that of a run of the same length
    count = settings.eval_iters * settings.batch
    samples = pack(settings, open_training_data(settings, tokenizer), tokenizer, 6 * settings.batch, count).valid
    total, tokens = 0.0, 0
    with torch.no_grad():
        for sample in (samples[index] for index in range(min(len(samples), count))):
            # one at a time and in float64 from the logits on: sums in another order differ in the seventh digit
            chances = model(sample["tokens"][None]).logits[0].double().log_softmax(-1)
            counts = sample["loss_mask"] > 0
            total -= chances[counts, sample["labels"][counts]].sum().item()
            tokens += int(counts.sum())
    assert tokens == last["tokens"]
    assert total / tokens == pytest.approx(last["lm_loss"], rel=1e-6)


def test_two_processes_train_as_one(launched: Path, corpus: Path, tmp_path: Path) -> None:
    arguments = write_configuration(
        tmp_path, **paths(corpus, penalty_data_path=str(corpus / "mask"), save="out", num_gpus=2)
    )
    result = deepy(arguments, tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("lm_loss", "penalty_ce", "objective", "grad_norm"):
        assert losses(tmp_path / "out", name) == pytest.approx(losses(launched / "out", name), rel=1e-5)


def test_bad_configuration_exits_2_without_traceback(tmp_path: Path) -> None:
    result = deepy(write_configuration(tmp_path, data_path="nowhere", num_layer=3, train_iters="x"), tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "deepy.py: num_layer: unknown key; did you mean 'num_layers'?",
        "deepy.py: train_iters: expected an integer, got 'x' (str)",
        "deepy.py: data_path: nowhere has no file nowhere.bin, nowhere.idx",
    ]


def test_a_worker_that_fails_says_why_and_deepy_returns_its_code(corpus: Path, tmp_path: Path) -> None:
    for suffix in ("bin", "idx"):
        shutil.copy(corpus / f"data.{suffix}", tmp_path / f"data.{suffix}")
    with open(tmp_path / "data.bin", "r+b") as stream:
        stream.truncate(100)
    result = deepy(write_configuration(tmp_path, data_path=str(tmp_path / "data")), tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"train: {tmp_path / 'data.bin'} is truncated")


@pytest.fixture
def stock(train: Train, corpus: Path, tmp_path: Path) -> Path:
    """An ordinary run without penalty keys."""
    assert train(**paths(corpus, save=str(tmp_path / "stock"))) == 0
    return tmp_path / "stock"


def test_without_selected_tokens_it_is_the_stock_run(train: Train, stock: Path, corpus: Path, tmp_path: Path) -> None:
    assert train(**paths(corpus, save=str(tmp_path / "a"), penalty_data_path=str(corpus / "empty"))) == 0
    assert losses(tmp_path / "a") == losses(stock)
    assert same(tmp_path / "a", stock)


def test_ascent_with_lambda_minus_one_is_the_stock_run(train: Train, stock: Path, corpus: Path, tmp_path: Path) -> None:
    mask = {"penalty_data_path": str(corpus / "mask")}
    assert train(**paths(corpus, save=str(tmp_path / "a"), penalty_lambda=-1.0, **mask)) == 0
    assert losses(tmp_path / "a", "objective") == pytest.approx(losses(stock), rel=1e-6)
    assert train(**paths(corpus, save=str(tmp_path / "b"), **mask)) == 0
    assert losses(tmp_path / "b", "objective") != pytest.approx(losses(stock), rel=1e-3)
    # the push works: the selected letter ends up less likely than where it was learned
    assert losses(tmp_path / "b", "penalty_ce")[-1] > losses(tmp_path / "a", "penalty_ce")[-1] + 1


@pytest.mark.parametrize("stage", [0, 2])
def test_resumed_is_uninterrupted(train: Train, corpus: Path, tmp_path: Path, stage: int) -> None:
    """With dropout and penalty warm-up, whose state is the iteration."""
    common = paths(
        corpus, zero_optimization={"stage": stage}, hidden_dropout=0.1, penalty_data_path=str(corpus / "mask"),
        penalty_warmup_iters=5,
    )  # fmt: skip
    assert train(**common, save=str(tmp_path / "whole")) == 0
    parts = {"save": str(tmp_path / "parts"), "load": str(tmp_path / "parts")}
    assert train(**common, **parts, exit_interval=3) == 0
    # a killed run has logged beyond its checkpoint, and half a line
    with open(tmp_path / "parts" / "train_log.jsonl", "a") as stream:
        stream.write('{"iteration": 4, "lm_loss": 0.0}\n{"iterat')
    assert train(**common, **parts) == 0
    for name in ("lm_loss", "grad_norm", "lr"):
        assert losses(tmp_path / "parts", name) == losses(tmp_path / "whole", name)
    assert same(tmp_path / "parts", tmp_path / "whole")


def test_killed_and_resumed_is_uninterrupted(corpus: Path, tmp_path: Path) -> None:
    """SIGKILL of the launcher and its worker at whatever iteration they are; the same command finishes the run."""
    values = paths(corpus, train_iters=300, checkpoint_factor=20, eval_iters=0, penalty_data_path=str(corpus / "mask"))
    whole = write_configuration(tmp_path / "a", **values, save="out", load="out")
    arguments = write_configuration(tmp_path / "b", **values, save="out", load="out")
    assert deepy(whole, tmp_path / "a").returncode == 0

    out = tmp_path / "b" / "out"
    assert 0 < killed_after_a_checkpoint(arguments, tmp_path / "b", out) < 300
    assert deepy(arguments, tmp_path / "b").returncode == 0
    assert losses(out) == losses(tmp_path / "a" / "out")
    assert same(out, tmp_path / "a" / "out")


def test_a_full_disk_ends_the_run_in_one_line(
    train: Train, corpus: Path, tiny_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(**paths(corpus, save=str(tiny_disk / "out"))) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert f"no space left on the disk of {tiny_disk / 'out'}" in error and "iteration 6 was not written" in error
    assert not list((tiny_disk / "out").glob("global_step*")) and not list((tiny_disk / "out").glob(".*"))


def test_finetune_takes_weights_only(train: Train, stock: Path, corpus: Path, tmp_path: Path) -> None:
    from_checkpoint, from_export = tmp_path / "a", tmp_path / "b"
    for load, save in ((stock, from_checkpoint), (stock / "hf", from_export)):
        assert train(**paths(corpus, load=str(load), finetune=True, save=str(save), keep_last_n_checkpoints=1)) == 0
    assert losses(from_checkpoint) == losses(from_export)
    assert losses(from_export)[0] < losses(stock)[0] - 0.05
    assert read_log(from_export)[0]["iteration"] == 1


def test_continuing_an_export_is_refused(
    train: Train, stock: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(**paths(corpus, load=str(stock / "hf"))) == 2
    assert "it can be fine-tuned (finetune: true), not continued" in capsys.readouterr().err


def test_a_loss_that_explodes_ends_in_one_line(
    train: Train, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer = {"type": "Adam", "params": {"lr": 1e30}}
    values = paths(corpus, optimizer=optimizer, save=str(tmp_path / "a"), gradient_clipping=0.0)
    assert train(**values) == 2
    error = capsys.readouterr().err
    assert error.startswith("train: the loss is not finite at iteration") and error.count("\n") == 1
    assert not (tmp_path / "a" / "latest").exists(), "a broken model was saved"


def test_accumulation_and_precision(train: Train, stock: Path, corpus: Path, tmp_path: Path) -> None:
    values = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4, "train_batch_size": None}
    assert train(**paths(corpus, save=str(tmp_path / "a"), **values)) == 0
    assert losses(tmp_path / "a") == pytest.approx(losses(stock), rel=1e-5)
    for stage in (0, 1):
        save = tmp_path / f"b{stage}"
        assert train(**paths(corpus, save=str(save), precision="bfloat16", zero_optimization={"stage": stage})) == 0
        # a step of bfloat16 is 2^-8 of a number, and a rounded one is off by half of that
        assert losses(save) == pytest.approx(losses(stock), rel=2**-9)
        assert weights(save)["gpt_neox.embed_in.weight"].dtype == torch.bfloat16


def test_epochs_and_last_of_the_data(train: Train, corpus: Path, tmp_path: Path) -> None:
    assert train(**paths(corpus, train_iters=None, train_epochs=2, save=str(tmp_path / "a"))) == 0
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    lengths = TokenDataset.open(corpus / "data").lengths
    tokens = int(lengths[: round(0.8 * len(lengths))].sum())
    # two passes are one stream, whose last token is a label alone; what fills no batch of 8 is left out
    assert record["train_iters"] == (2 * tokens - 1) // 16 // 8
    assert len(losses(tmp_path / "a")) == record["train_iters"]
