"""Keys of the objectives: every combination that cannot be meant is a line that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from ifguide.engine.arguments import TrainConfig
from ifguide.objectives.keys import (
    needs_reference,
    objective_faults,
    repo_labels,
    repo_warmup,
    rmu_layer,
)


def config(**values: Any) -> TrainConfig:
    return TrainConfig(**{"num_layers": 4, "train_iters": 300, **values})


def faults(masked: bool = False, **values: Any) -> list[str]:
    return list(objective_faults(config(**values), masked))


@pytest.mark.parametrize("name", ["dpo", "npo", "rmu", "repo"])
def test_defaults_are_sound(name: str) -> None:
    assert faults(objective=name, pairs_data_path="p") == []
    assert needs_reference(config(objective=name))


def test_language_modelling_is_left_alone() -> None:
    assert faults(masked=True) == [] and not needs_reference(config())
    assert faults(lora_rank=4) == []


@pytest.mark.parametrize(
    ("values", "masked", "line"),
    [
        (
            {"objective": "dpo"}, False,
            "pairs_data_path: objective dpo needs it: JSONL with prompt, chosen and rejected",
        ),
        (
            {"objective": "npo", "pairs_data_path": "p"}, True,
            "objective: npo has no penalty; leave the masks out, or take objective lm or repo",
        ),
        (
            {"objective": "dpo", "pairs_data_path": "p", "npo_beta": 0.5}, False,
            "npo_beta: has no effect with objective dpo; it belongs to objective npo",
        ),
        ({"pairs_data_path": "p"}, False, "pairs_data_path: has no effect with objective lm"),
        ({"reference": "r"}, False, "reference: has no effect with objective lm"),
        (
            {"objective": "rmu", "pairs_data_path": "p", "lora_rank": 2}, False,
            "lora_rank: has no effect with objective rmu",
        ),
        ({"objective": "repo"}, False, "pairs_data_path: objective repo needs it, or a penalty mask in its place"),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_labels": "mask"}, False,
            "repo_labels: mask needs a penalty mask (penalty_data_path or train_penalty_data_paths)",
        ),
        ({"objective": "repo", "repo_labels": "pairs"}, True, "repo_labels: pairs needs pairs_data_path"),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_labels": "mask"}, True,
            "pairs_data_path: has no effect with repo_labels mask",
        ),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_penalty": False}, False,
            "repo_penalty: has no effect without a penalty mask",
        ),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_penalty": False}, True,
            "repo_penalty: false leaves the masks without a use where the labels come from pairs; leave them out",
        ),
        (
            {"objective": "repo", "penalty_action": "hide"}, True,
            "penalty_action: hide replaces the tokens that objective repo reads; take drop or penalise",
        ),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_lambda": 0.0, "repo_retain": "none"}, False,
            "repo_lambda: 0 without a retain term and without (M4) leaves nothing to minimise",
        ),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_lambda": 0.0, "repo_confusion": True}, False,
            "repo_confusion: has no effect with repo_lambda 0",
        ),
        (
            {"objective": "repo", "pairs_data_path": "p", "train_iters": 100}, False,
            "repo_warmup_iters: 100 of train_iters 100 leave the model no iteration; train longer, or warm up for "
            "fewer",
        ),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_retain": "ce", "reference": "r"}, False,
            "reference: has no effect without repo_retain kl",
        ),
        (
            {"objective": "dpo", "pairs_data_path": "p", "lora_rank": 2, "reference": "r"}, False,
            "reference: with lora_rank it is the model without its adapters; leave the key out",
        ),
        (
            {"objective": "repo", "pairs_data_path": "p", "repo_layer": 5}, False,
            "repo_layer: must be a block from 1 to num_layers 4, got 5",
        ),
        ({"lora_alpha": 8}, False, "lora_alpha: has no effect without lora_rank"),
        ({"objective": "dpo", "pairs_data_path": "p", "dpo_beta": 0.0}, False,
         "dpo_beta: must be a finite number above 0, got 0.0"),
        ({"objective": "npo", "pairs_data_path": "p", "npo_retain": -1.0}, False,
         "npo_retain: must be a finite number of at least 0, got -1.0"),
    ],
)  # fmt: skip
def test_faults(values: dict[str, Any], masked: bool, line: str) -> None:
    assert faults(masked, **values) == [line]


def test_what_is_left_open_is_settled() -> None:
    assert [rmu_layer(config(), layers) for layers in (1, 2, 3, 4, 12)] == [1, 1, 1, 2, 4]
    assert rmu_layer(config(rmu_layer=3), 12) == 3
    assert repo_labels(config()) == "mask" and repo_labels(config(pairs_data_path="p")) == "pairs"
    assert repo_labels(config(pairs_data_path="p", repo_labels="mask")) == "mask"
    assert repo_warmup(config()) == 100 and repo_warmup(config(repo_lambda=0.0)) == 0
