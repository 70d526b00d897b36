"""What of a configuration cannot be scored: every fault at once, one line each, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ifguide_patch.scoring.keys import overrides, score_faults
from ifguide_patch.script import SCRIPT_VARIABLE, is_scoring, is_training
from tests.patch.checkouts import write_data


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    queries = tmp_path / "toxic.jsonl"
    queries.write_text('{"prompt": "a", "completion": " b"}\n')
    return {
        "score_data": write_data(tmp_path), "score_output": str(tmp_path / "scores"),
        "score_toxic_queries": str(queries), "save": str(tmp_path / "run"),
    }  # fmt: skip


def test_a_whole_configuration_has_no_fault(config: dict[str, Any]) -> None:
    assert list(score_faults(config)) == []
    assert list(score_faults(config | {"zero_optimization": {"stage": 1}, "precision": "fp32"})) == []


FAULTS = {
    "a mixture": ({"moe_num_experts": 4}, "moe_num_experts: 4: the influence of a mixture's experts"),
    "ZeRO 2": ({"zero_optimization": {"stage": 2}}, "zero_optimization: stage 2 cuts weights or gradients"),
    "ZeRO 3": ({"zero_optimization": {"stage": 3}}, "zero_optimization: stage 3 cuts weights or gradients"),
    "fp16": ({"precision": "fp16"}, "precision: fp16 rounds away the difference of two losses"),
    "a block of fp16": ({"fp16": {"enabled": True}}, "precision: fp16 rounds away"),
    "a block of bf16": ({"bf16": {"enabled": True}}, "precision: bfloat16 rounds away"),
    "bfloat16": ({"precision": "bfloat16"}, "precision: bfloat16 rounds away"),
    "DPO": ({"train_impl": "dpo"}, "train_impl: dpo: scores are of next-token losses"),
    "muP": ({"use_mup": True}, "use_mup: True: muP scales layers by width"),
    "no step": ({"score_step": 0.0}, "score_step: must be a positive number, got 0.0"),
    "a negative damping": ({"score_damping": -1.0}, "score_damping: must be a number of at least 0"),
    "an empty batch": ({"score_batch_size": 0}, "score_batch_size: must be at least 1, got 0"),
    "no data": ({"score_data": None}, "score_data: required"),
    "data that is gone": ({"score_data": "gone"}, "score_data: gone has no file"),
    "no output": ({"score_output": None}, "score_output: required"),
    "no folder": ({"score_output": "gone/scores"}, "score_output gone/scores: folder"),
    "no queries": ({"score_toxic_queries": None}, "score_toxic_queries: required (or score_direction"),
    "queries that are gone": ({"score_safe_queries": "gone.jsonl"}, "score_safe_queries: gone.jsonl does not exist"),
    "factors that are gone": ({"score_factors": "gone"}, "score_factors: gone holds no factors.json"),
    "no checkpoint": ({"save": None}, "load: names no checkpoint"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line(config: dict[str, Any], name: str) -> None:
    change, words = FAULTS[name]
    (line,) = score_faults(config | change)
    assert words in line and "\n" not in line


def test_all_faults_at_once(config: dict[str, Any]) -> None:
    given = {"score_direction": "d", "precision": "fp16", "moe_num_experts": 2, "zero_optimization": {"stage": 3}}
    lines = list(score_faults(config | given))
    assert len(lines) == 6, lines
    assert sum("score_toxic_queries would have no effect" in line for line in lines) == 1


def test_what_scoring_changes_of_a_training(config: dict[str, Any]) -> None:
    changed = overrides(config | {"zero_optimization": {"stage": 1}, "train_label_data_paths": ["l"], "finetune": True})
    assert changed["load"] == config["save"] and changed["no_load_optim"] and not changed["finetune"]
    assert changed["zero_optimization"] == {"stage": 0} and changed["train_label_data_paths"] is None
    assert "load" not in overrides(config | {"load": "other"})


def test_the_script_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRIPT_VARIABLE, "/anywhere/score.py")
    assert is_scoring() and not is_training()
    monkeypatch.setenv(SCRIPT_VARIABLE, "/anywhere/train.py")
    assert is_training() and not is_scoring()
