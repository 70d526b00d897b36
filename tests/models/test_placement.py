"""A model over several devices: who gets which block, and that nothing stays behind.

That it computes the same there is shown on two pretended GPUs, in tests/scale.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ifguide.errors import ConfigError, InputError
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.job import Inputs, prepare
from ifguide.influence.options import Method, Options
from ifguide.models.blocks import blocks_of
from ifguide.models.devices import all_gpus
from ifguide.models.placement import balanced, moved, spread
from tests.support.tiny_models import tiny_neox


def test_blocks_are_shared_out_by_bytes_and_in_order() -> None:
    assert balanced([10] * 8, 0, 4) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert balanced([10] * 8, 40, 3) == [0, 0, 0, 0, 1, 1, 1, 1], "the last device has the 40 beside them"
    assert balanced([10, 10], 1000, 2) == [0, 0]
    assert balanced([30, 10, 10, 10], 0, 2) == [0, 1, 1, 1]


@pytest.mark.parametrize("devices", [1, 2, 3, 5, 8])
def test_no_device_has_more_than_its_share_and_half_a_block(devices: int) -> None:
    sizes, beside = [70 + 13 * (block % 3) for block in range(24)], 300
    places = balanced(sizes, beside, devices)
    assert places == sorted(places) and set(places) <= set(range(devices))
    share = (sum(sizes) + beside) / devices
    for device in range(devices):
        held = sum(size for size, place in zip(sizes, places, strict=True) if place == device)
        assert held <= share + max(sizes) or device == devices - 1
    last = sum(size for size, place in zip(sizes, places, strict=True) if place == devices - 1)
    assert last + beside <= max(share, beside) + max(sizes)


def test_everything_moves_that_is_given_to_a_block() -> None:
    given = {"a": (torch.ones(2), None), "b": [torch.ones(1), 3], "c": "text"}
    found = moved(given, torch.device("meta"))
    assert found["a"][0].is_meta and found["a"][1] is None and found["b"][0].is_meta
    assert found["b"][1] == 3 and found["c"] == "text" and type(found["b"]) is list


def test_a_tangent_goes_along() -> None:
    _, tangent = torch.func.jvp(
        lambda x: moved((x * 2,), torch.device("cpu"))[0], (torch.ones(3),), (torch.arange(3.0),)
    )
    assert tangent.tolist() == [0, 2, 4]


def test_nothing_of_a_model_stays_behind() -> None:
    model = tiny_neox(num_hidden_layers=3, vocab_size=16)
    spread(model, ["cpu", "meta"])
    first, *_, last = blocks_of(model)
    assert {one.device.type for one in first.parameters()} == {"cpu"}
    assert {one.device.type for one in last.parameters()} == {"meta"}
    assert model.get_input_embeddings().weight.is_meta and model.get_output_embeddings().weight.is_meta


def test_a_machine_without_several_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device-map needs two GPUs or more, torch sees 0"):
        all_gpus("--device-map")


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="for one process"):
        all_gpus("--device-map")


def test_position_needs_one_device(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path, tmp_path / "d", tmp_path, [QueryFiles("t", "s")], tmp_path / "o")
    with pytest.raises(ConfigError, match="--device-map spreads a model for jvp and difference"):
        prepare(inputs, Options(Method(attribution="position"), device_map="balanced"), quiet=True)
