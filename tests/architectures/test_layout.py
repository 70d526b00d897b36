"""Merging and splitting, held against NeoX's forward pass over the shards themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ifguide.architectures import layout
from ifguide.checkpoints.neox_forward import forward
from ifguide.checkpoints.reader import NeoxCheckpoint
from tests.checkpoints.tiny import STYLES, Ranks, architecture_of, checkpoint, keys_of, random_ranks, tokens


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sequential", [True, False], ids=["sequential", "layer files"])
def test_merged_ranks_compute_what_the_ranks_compute_together(tmp_path: Path, style: str, sequential: bool) -> None:
    folder, keys, ranks = checkpoint(tmp_path, style, ranks=2, sequential=sequential)
    architecture = architecture_of(keys)
    saved = NeoxCheckpoint.open(folder)
    together = forward(lambda layer: [rank[layer] for rank in ranks], architecture, tokens())
    merged = forward(lambda layer: [saved.merged(layer, architecture)], architecture, tokens())
    torch.testing.assert_close(merged, together, rtol=1e-5, atol=2e-5)
    assert together.abs().max() > 1  # the comparison can see something


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_splitting_gives_the_ranks_back(style: str, ranks: int) -> None:
    if ranks == 4 and style == "llama grouped":
        pytest.skip("two key/value heads cannot go to four ranks")
    keys = keys_of(style)
    architecture = architecture_of(keys)
    whole = random_ranks(keys, 1)[0]
    parts: Ranks = [{} for _ in range(ranks)]
    for layer, tensors in whole.items():
        for name, tensor in tensors.items():
            for rank, part in enumerate(layout.split(name, tensor, ranks, architecture)):
                assert part.untyped_storage().nbytes() == part.nbytes, "a view would save the whole tensor"
                parts[rank].setdefault(layer, {})[name] = part
    merged = {
        layer: {name: layout.merge(name, [part[layer][name] for part in parts], architecture) for name in tensors}
        for layer, tensors in whole.items()
    }
    for layer, tensors in whole.items():
        for name, tensor in tensors.items():
            assert torch.equal(merged[layer][name], tensor), name
    torch.testing.assert_close(
        forward(lambda layer: [part[layer] for part in parts], architecture, tokens()),
        forward(lambda layer: [whole[layer]], architecture, tokens()),
        rtol=1e-5,
        atol=2e-5,
    )


def test_parameters_are_those_of_a_checkpoint() -> None:
    for style in STYLES:
        keys = keys_of(style)
        expected = layout.parameters(architecture_of(keys))
        found = {
            layer: {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            for layer, tensors in random_ranks(keys, 1)[0].items()
        }
        assert found == expected


def test_copies_that_drifted_apart_are_averaged_and_equal_ones_taken_as_they_are() -> None:
    architecture = architecture_of(keys_of("sequential residual"))
    one = torch.tensor([1.0, 3.0]).bfloat16()
    assert torch.equal(layout.merge("norm.weight", [one, one.clone()], architecture), one)
    assert layout.merge("mlp.linear2.bias", [one, one + 2], architecture).tolist() == [2.0, 4.0]


def test_output_biases_add_up_only_with_the_parallel_residual() -> None:
    bias = torch.tensor([1.0, 2.0])
    parallel, sequential = (architecture_of(keys_of(style)) for style in ("pythia", "sequential residual"))
    assert layout.merge("attention.dense.bias", [bias, bias], parallel).tolist() == [2.0, 4.0]
    assert layout.merge("attention.dense.bias", [bias, bias], sequential).tolist() == [1.0, 2.0]


def test_split_faults_name_what_does_not_divide() -> None:
    architecture = architecture_of(keys_of("llama grouped"))
    assert layout.split_faults(architecture, 2) == []
    assert layout.split_faults(architecture, 4) == ["--tensor-parallel 4 does not divide the key/value heads (2)"]
    assert len(layout.split_faults(architecture, 5)) == 3
