"""What deepy.py refuses with a real checkout: before anything starts, exit code 2, one line for each fault."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.neox.corpora import write_corpus
from tests.neox.harness import MODEL, ROOT, deepy, environment_of


def refused(command: list[str], folder: Path) -> list[str]:
    result = subprocess.run(command, cwd=folder, env=environment_of(1), capture_output=True, text=True)
    assert result.returncode == 2, result.stdout[-2000:] + result.stderr[-2000:]
    return [line for line in result.stderr.splitlines() if line.startswith("deepy.py: ")]


def test_every_fault_of_a_configuration_at_once(neox: Path, corpus: Path, data: dict[str, Any], tmp_path: Path) -> None:
    other = write_corpus(tmp_path, "other", documents=20, seed=9)
    bare = tmp_path / "bare"
    for end in (".bin", ".idx"):
        shutil.copy(f"{corpus}-binary{end}", f"{bare}{end}")
    path = str(corpus)
    keys = {
        **MODEL, **data, "train_data_paths": [path, path, path], "train_impl": "dpo", "penalty_warmup_iters": -1,
        "train_penalty_data_paths": [f"{other}-binary", str(bare), ""],
    }  # fmt: skip
    lines = refused(deepy(neox, tmp_path, {"model": keys}), tmp_path)
    assert len(lines) == 4, lines
    for words in (
        "penalty_warmup_iters: must be a finite number of at least 0",
        "train_impl dpo has another loss",
        f"{bare}.json",
        f"{other}-binary",
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)


@pytest.mark.parametrize("objective", ["dpo", "rm", "kto", "reinforce"])
def test_objectives_that_are_no_cross_entropy(neox: Path, objective: str) -> None:
    """Without a process each: the rule itself, which the launcher asks (see above)."""
    from ifguide_patch.keys import neox_faults

    config = {"train_impl": objective, "train_data_paths": ["a"], "train_penalty_data_paths": ["m"]}
    assert [line for line in neox_faults(config) if f"train_impl {objective}" in line]


def test_values_of_another_type_do_not_hide_other_faults(
    neox: Path, corpus: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    keys = {
        **MODEL, **data, "train_penalty_data_paths": [f"{corpus}-binary", f"{corpus}-binary"], "hiden_size": 3,
        "num_layers": "two",
        "optimizer": {"type": "Adam", "params": {"lr": 0.001, "betas": [0.9, 0.95], "eps": "1e-8"}},
    }  # fmt: skip
    lines = refused(deepy(neox, tmp_path, {"model": keys}), tmp_path)
    assert len(lines) == 4, lines
    for words in (
        "hiden_size: unknown key; did you mean 'hidden_size'?",
        "num_layers: expected int, got 'two' (str)",
        "1e-8",
        "2 masks for 1 train_data_paths",
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)


def test_a_changed_checkout_is_refused_in_the_words_of_check(neox: Path, data: dict[str, Any], tmp_path: Path) -> None:
    checkout = tmp_path / "changed"
    shutil.copytree(neox, checkout, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    file = checkout / "megatron" / "model" / "gpt2_model.py"
    text = file.read_text()
    assert "/ loss_mask.sum()" in text
    file.write_text(text.replace("/ loss_mask.sum()", "/ loss_mask.numel()"))
    (line,) = refused(deepy(checkout, tmp_path, {"model": {**MODEL, **data}}), tmp_path)
    fault = line.removeprefix("deepy.py: ")
    assert "megatron.model.gpt2_model.cross_entropy is not a version that was tested" in fault
    command = [sys.executable, "-m", "ifguide_patch.check", str(checkout)]
    check = subprocess.run(command, cwd=ROOT, env=environment_of(1), capture_output=True, text=True)
    assert check.returncode == 1
    assert f"  {fault}" in check.stdout.splitlines()
    command[-1] = str(neox)
    check = subprocess.run(command, cwd=ROOT, env=environment_of(1), capture_output=True, text=True)
    assert check.returncode == 0 and "every place is as tested" in check.stdout
