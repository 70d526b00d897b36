"""Directions, gradients and curvature between GPT-NeoX's slices and the matrices of Hugging Face's tracked layers.

A direction has one matrix [O, I] per linear layer, the bias its last column. A GPT-NeoX process holds some pipeline
layers, of each the share of its tensor-parallel rank: `layout` says which rows or columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture
from ifguide.architectures.registry import Family
from ifguide.errors import MismatchError
from ifguide.influence.direction import Direction

_LINEAR = ("attention.query_key_value.", "attention.dense.", "mlp.linear1.", "mlp.linear2.")


def tracked_shapes(architecture: Architecture) -> dict[int, layout.Shapes]:
    """Pipeline layer of each block -> name -> whole shape of the weights and biases that are scored."""
    shapes = {}
    for layer, expected in layout.parameters(architecture).items():
        if layout.block_of(layer, architecture) is not None:
            shapes[layer] = {name: shape for name, shape in expected.items() if name.startswith(_LINEAR)}
    return shapes


def matrices(
    layer: int, ranks: Sequence[Mapping[str, Tensor]], family: Family, architecture: Architecture
) -> dict[str, Tensor]:
    """One matrix[O, I] per Hugging Face layer of pipeline layer ``layer``.

    Args:
        ranks: gradients (or their second moments) of what `tracked_shapes` names, of each tensor-parallel rank.
    """
    whole = {
        name: layout.merge_gradients(name, [rank[name] for rank in ranks], architecture)
        for name in tracked_shapes(architecture)[layer]
    }
    parameters = family.export(layer, whole, architecture)
    result = {}
    for name, tensor in parameters.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight":
            bias = parameters.get(f"{module}.bias")
            result[module] = tensor if bias is None else torch.cat([tensor, bias[:, None]], dim=1)
    return result


def slices(
    layer: int, direction: Mapping[str, Tensor], family: Family, architecture: Architecture, ranks: int
) -> list[dict[str, Tensor]]:
    """What each of ``ranks`` tensor-parallel ranks adds to its parameters of pipeline layer ``layer``: inverse of
    `matrices`. A layer that ``direction`` does not have stays where it is."""
    whole_shapes = layout.parameters(architecture)[layer]
    empty = {name: torch.empty(shape, device="meta") for name, shape in whole_shapes.items()}
    parameters = {}
    for name, tensor in family.export(layer, empty, architecture).items():
        module, _, kind = name.rpartition(".")
        matrix = direction.get(module)
        if matrix is None:
            parameters[name] = torch.zeros(tensor.shape)
        elif kind == "bias":
            parameters[name] = matrix[:, -1]
        else:
            parameters[name] = matrix[:, : tensor.shape[1]]
    whole = family.load(layer, parameters, architecture)
    split = {name: layout.split(name, whole[name], ranks, architecture) for name in tracked_shapes(architecture)[layer]}
    return [{name: parts[rank] for name, parts in split.items()} for rank in range(ranks)]


def layer_matrix_shapes(family: Family, architecture: Architecture) -> dict[int, dict[str, tuple[int, int]]]:
    """Pipeline layer of each block -> name -> (O, I) of what is tracked of it in the model's Hugging Face form."""
    found = {}
    for layer, shapes in tracked_shapes(architecture).items():
        empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        of_layer = matrices(layer, [empty], family, architecture)
        found[layer] = {name: (matrix.shape[0], matrix.shape[1]) for name, matrix in of_layer.items()}
    return found


def matrix_shapes(family: Family, architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Name -> (O, I) of every layer that is tracked in the model's Hugging Face form."""
    by_layer = layer_matrix_shapes(family, architecture).values()
    return {name: shape for shapes in by_layer for name, shape in shapes.items()}


def check_matrices(
    what: str | Path, found: Mapping[str, Sequence[int]], family: Family, architecture: Architecture
) -> None:
    """
    Raises:
        MismatchError: ``found``, shapes of a direction's or a curvature's matrices by layer, are not of this model.
    """
    expected = matrix_shapes(family, architecture)
    for name, shape in found.items():
        if name not in expected:
            raise MismatchError(f"{what} has a layer {name}, which the checkpoint's model has not; was it made for it?")
        if tuple(shape) != expected[name]:
            raise MismatchError(
                f"{what}: {name} is {list(shape)}, the checkpoint's layer needs {list(expected[name])}; was it made "
                "for this model?"
            )


def read_slices(
    path: Path, layers: Sequence[int], family: Family, architecture: Architecture, ranks: int, rank: int
) -> dict[int, dict[str, Tensor]]:
    """Of the direction in the file ``path``, what tensor-parallel rank ``rank`` adds to these pipeline layers; whole,
    one layer of it is in memory at a time."""
    from safetensors import safe_open

    found = {}
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for layer in layers:
            modules = {name.rpartition(".")[0] for name in family.names(layer, architecture)}
            direction: Direction = {name: file.get_tensor(name) for name in sorted(modules & names)}
            found[layer] = slices(layer, direction, family, architecture, ranks)[rank]
    return found
