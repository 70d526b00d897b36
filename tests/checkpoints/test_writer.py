"""A checkpoint as it lies on disk: which file holds what, and how much is in memory meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.checkpoints.writer import write_checkpoint
from tests.checkpoints.tiny import architecture_of, keys_of, random_ranks

KEYS = keys_of("pythia")
ARCHITECTURE = architecture_of(KEYS)
WHOLE: dict[int, dict[str, Tensor]] = random_ranks(KEYS, 1)[0]
ARGUMENTS = {"num_layers": 2, "pipe_parallel_size": 1}


def write(save: Path, tensor_parallel: int, pipeline_parallel: int) -> list[int]:
    """Returns the layers that were asked for, in order."""
    asked: list[int] = []

    def whole(layer: int) -> Mapping[str, Tensor]:
        asked.append(layer)
        return WHOLE[layer]

    save.mkdir()
    write_checkpoint(save, whole, ARCHITECTURE, tensor_parallel, pipeline_parallel, ARGUMENTS)
    return asked


def load(path: Path) -> dict:
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize(("tensor", "stages"), [(1, 1), (2, 1), (2, 2)])
def test_a_file_for_each_layer_and_rank(tmp_path: Path, tensor: int, stages: int) -> None:
    asked = write(tmp_path / "out", tensor, stages)
    assert asked == sorted(WHOLE), "each layer is read once, and then forgotten"
    folder = tmp_path / "out" / "global_step0"
    assert (tmp_path / "out" / "latest").read_text() == "global_step0"
    layers = {layout.layer_file(layer, rank) for layer in WHOLE for rank in range(tensor)}
    states = {layout.rank_file(rank) for rank in range(tensor * stages)}
    assert {path.name for path in folder.iterdir()} == layers | states
    for layer, expected in WHOLE.items():
        parts = [load(folder / layout.layer_file(layer, rank)) for rank in range(tensor)]
        assert all(part.keys() == expected.keys() for part in parts)
        for name, value in expected.items():
            shares = layout.split(name, value, tensor, ARCHITECTURE)
            assert all(torch.equal(part[name], share) for part, share in zip(parts, shares, strict=True))
    for name in states:
        state = load(folder / name)
        assert state["module"] is None and state["args"] == ARGUMENTS
        assert state["mp_world_size"] == tensor * stages and state["iteration"] == 0


def test_without_pipeline_a_file_for_each_rank(tmp_path: Path) -> None:
    asked = write(tmp_path / "out", 2, 0)
    assert asked == sorted(WHOLE) * 2, "a rank's share at a time, not all of them"
    folder = tmp_path / "out" / "global_step0"
    assert {path.name for path in folder.iterdir()} == {layout.rank_file(rank) for rank in (0, 1)}
    for rank in (0, 1):
        state = load(folder / layout.rank_file(rank))
        expected = {
            f"sequential.{layer}.{name}": layout.split(name, value, 2, ARCHITECTURE)[rank]
            for layer, tensors in WHOLE.items()
            for name, value in tensors.items()
        }
        assert state["module"].keys() == expected.keys() and state["mp_world_size"] == 2
        assert all(torch.equal(state["module"][name], value) for name, value in expected.items())


def test_a_file_holds_its_own_numbers_only(tmp_path: Path) -> None:
    """A rank's share is a view of the whole matrix: saved as it is, each file would carry all of it."""
    write(tmp_path / "out", 2, 1)
    folder = tmp_path / "out" / "global_step0"
    for layer, tensors in WHOLE.items():
        share = load(folder / layout.layer_file(layer, 0))
        own = sum(value.numel() * value.element_size() for value in share.values())
        file = (folder / layout.layer_file(layer, 0)).stat().st_size
        assert own <= file < own + 600 * (len(tensors) + 3), layer
