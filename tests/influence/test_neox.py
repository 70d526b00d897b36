"""Directions between GPT-NeoX's slices and Hugging Face's matrices."""

from __future__ import annotations

import pytest
import torch

from ifguide.architectures import layout
from ifguide.architectures.registry import family_of
from ifguide.errors import MismatchError
from ifguide.influence.neox import check_matrices, matrices, matrix_shapes, slices, tracked_shapes
from tests.checkpoints.tiny import STYLES, architecture_of, keys_of


def directions(style: str) -> tuple:
    architecture = architecture_of(keys_of(style))
    family = family_of(architecture)
    generator = torch.Generator().manual_seed(0)
    shapes = matrix_shapes(family, architecture)
    return architecture, family, {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_the_ranks_add_is_the_direction(style: str, ranks: int) -> None:
    """Merged as weights are, the moves of all ranks are the direction: the function moves as it says."""
    architecture, family, direction = directions(style)
    found = {}
    for layer in tracked_shapes(architecture):
        parts = slices(layer, direction, family, architecture, ranks)
        assert all(part.keys() == tracked_shapes(architecture)[layer].keys() for part in parts)
        whole = {name: layout.merge(name, [part[name] for part in parts], architecture) for name in parts[0]}
        found |= matrices(layer, [whole], family, architecture)
    assert found.keys() == direction.keys()
    assert all(torch.equal(found[name], matrix) for name, matrix in direction.items())


@pytest.mark.parametrize("style", STYLES)
def test_every_rank_has_the_whole_gradient_of_a_bias_that_adds_up(style: str) -> None:
    """y = W x + (b_0 + b_1): the gradient of each share is that of the sum, not a share of it."""
    architecture, family, gradient = directions(style)
    for layer, shapes in tracked_shapes(architecture).items():
        parts = slices(layer, gradient, family, architecture, 2)
        for name in shapes:
            if name.endswith("dense.bias") or name.endswith("linear2.bias"):
                parts[1][name] = parts[0][name].clone()
        for name, matrix in matrices(layer, parts, family, architecture).items():
            assert torch.equal(matrix, gradient[name]), name


def test_a_layer_that_is_not_tracked_stays() -> None:
    architecture, family, direction = directions(next(iter(STYLES)))
    kept = {name: matrix for name, matrix in direction.items() if "mlp" in name}
    (part,) = slices(layout.block_layer(0), kept, family, architecture, 1)
    assert not part["attention.dense.weight"].any() and part["mlp.linear2.weight"].any()


def test_a_direction_of_another_model_is_refused() -> None:
    architecture, family, direction = directions(next(iter(STYLES)))
    shapes = {name: matrix.shape for name, matrix in direction.items()}
    check_matrices("d", shapes, family, architecture)
    name = next(iter(shapes))
    with pytest.raises(MismatchError, match=r"a layer model\.other, which the checkpoint's model has not"):
        check_matrices("d", {**shapes, "model.other": (2, 2)}, family, architecture)
    with pytest.raises(MismatchError, match=r"is \[2, 2\], the checkpoint's layer needs"):
        check_matrices("d", {**shapes, name: (2, 2)}, family, architecture)
