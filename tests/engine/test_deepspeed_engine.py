"""What DeepSpeed is told of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ifguide.engine.arguments import TrainConfig
from ifguide.engine.deepspeed_engine import _deepspeed_config, build_engine, clips_itself, parameter_groups
from ifguide.engine.settings import TrainSettings, resolve
from ifguide.errors import ConfigError
from tests.engine.tiny import MODEL


def settings(**values: Any) -> TrainSettings:
    return resolve(TrainConfig(**{**MODEL, "data_path": "data", **values}))


def test_matrices_decay_and_vectors_do_not() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    matrices, vectors = parameter_groups(model, 0.1)
    embedding, weight, bias, scale, shift = model.parameters()
    assert matrices["weight_decay"] == 0.1 and vectors["weight_decay"] == 0.0
    assert [id(one) for one in matrices["params"]] == [id(embedding), id(weight)]
    assert [id(one) for one in vectors["params"]] == [id(bias), id(scale), id(shift)]


def test_batch_sizes_are_the_settled_ones() -> None:
    given = settings(train_micro_batch_size_per_gpu=2, num_gpus=2)
    config = _deepspeed_config(given)
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [config[name] for name in sizes] == [8, 2, 2]


@pytest.mark.parametrize(
    ("precision", "stage", "told"), [("fp32", 0, 0), ("fp32", 2, 2), ("bfloat16", 0, 1), ("bfloat16", 2, 2)]
)
def test_bfloat16_has_master_weights_from_stage_1_on(precision: str, stage: int, told: int) -> None:
    section = {"stage": stage, "reduce_bucket_size": 7}
    config = _deepspeed_config(settings(precision=precision, zero_optimization=section))
    assert config["zero_optimization"] == {"stage": told, "reduce_bucket_size": 7}
    assert ("bf16" in config) == (precision == "bfloat16")


def test_the_gradient_is_clipped_once() -> None:
    """By us where DeepSpeed would not tell the norm, else by DeepSpeed, and never by both or neither."""
    for precision in ("fp32", "bfloat16", "fp16"):
        for stage in (0, 1, 2):
            given = settings(precision=precision, zero_optimization={"stage": stage}, gradient_clipping=0.7)
            assert ("gradient_clipping" in _deepspeed_config(given)) != clips_itself(given)
            assert clips_itself(given) == (precision == "fp32" and stage == 0)
            assert _deepspeed_config(given).get("gradient_clipping", 0.7) == 0.7


def test_sections_are_handed_on_without_neox_own_keys() -> None:
    given = settings(fp16={"enabled": True, "type": "fp16", "loss_scale": 0, "initial_scale_power": 5})
    assert _deepspeed_config(given)["fp16"] == {"enabled": True, "loss_scale": 0, "initial_scale_power": 5}
    assert "fp16" not in _deepspeed_config(settings())


def test_a_precision_that_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().device_name() != "cpu":
        pytest.skip("another accelerator is chosen already")
    with pytest.raises(ConfigError, match="precision: fp16 is not possible on cpu; use fp32"):
        build_engine(torch.nn.Linear(2, 2), settings(precision="fp16"))
