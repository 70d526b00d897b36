"""Factors of strategy ``diagonal`` from the second moments that Adam kept while a GPT-NeoX run trained.

They are means over steps of the squared gradient of the MEAN loss of a batch: the curvature's diagonal up to a scale,
which a damping that is relative to the layer's mean does not see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures.architecture import Architecture
from ifguide.architectures.registry import Family
from ifguide.checkpoints.adam import SecondMoments
from ifguide.checkpoints.reader import NeoxCheckpoint
from ifguide.data.text.reader import TextReader
from ifguide.errors import NumericsError
from ifguide.influence.curvature.store import FORMAT, Factors, save_factors
from ifguide.influence.neox import layer_matrix_shapes, matrices
from ifguide.influence.windows import resolve_lengths
from ifguide.models.folder import weights_fingerprint
from ifguide.system.files import hash_value
from ifguide.system.provenance import origin, versions

FOLDER = "adam_factors"
SCALE = "per step"


class AdamLayers(Mapping[str, dict[str, Tensor]]):
    """Λ[O, I] of every tracked Hugging Face layer; one pipeline layer of it is in memory.

    Attributes:
        step: that they are of.

    Raises:
        InputError: the checkpoint holds no second moments that can be told apart.
    """

    def __init__(self, checkpoint: NeoxCheckpoint, family: Family, architecture: Architecture):
        self._moments = SecondMoments(checkpoint)
        self._checkpoint, self._family, self._architecture = checkpoint, family, architecture
        by_layer = layer_matrix_shapes(family, architecture)
        self._layer_of = {name: layer for layer, shapes in by_layer.items() for name in shapes}
        self._held: tuple[int, dict[str, Tensor]] = (-1, {})
        self.step = self._moments.step

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        """
        Raises:
            NumericsError: it is not finite, or negative.
        """
        layer = self._layer_of[name]
        if self._held[0] != layer:
            self._held = layer, matrices(layer, self._moments.shards(layer), self._family, self._architecture)
        matrix = self._held[1][name]
        if not torch.isfinite(matrix).all() or float(matrix.min()) < 0:
            raise NumericsError(f"Adam's second moments of {name} in {self._checkpoint.folder} are no finite squares")
        return {"Lambda": matrix.contiguous()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer_of)

    def __len__(self) -> int:
        return len(self._layer_of)


def adam_factors(checkpoint: NeoxCheckpoint, family: Family, architecture: Architecture) -> Factors:
    """The same as factors that lie nowhere, told apart by their sums; goes through all of them once.

    Raises:
        InputError: the checkpoint holds no second moments that can be told apart.
        NumericsError: one is not finite, or negative.
    """
    layers = AdamLayers(checkpoint, family, architecture)
    sums = {name: float(layers[name]["Lambda"].double().sum()) for name in layers}
    record = {"modules": list(sums), "step": layers.step}
    return Factors("diagonal", layers, record, f"adam-{hash_value([layers.step, sums])}")


def write_adam_factors(
    checkpoint: NeoxCheckpoint, family: Family, architecture: Architecture, folder: Path, final: Path
) -> dict[str, Any]:
    """Write them into `FOLDER` of the Hugging Face folder ``folder`` that was made of ``checkpoint``, as fit-factors
    writes factors; returns what is said of them.

    Args:
        final: what ``folder`` will be named.

    Raises:
        InputError: the checkpoint holds no second moments that can be told apart.
        NumericsError: one is not finite, or negative.
    """
    found = AdamLayers(checkpoint, family, architecture)
    layers, step = {name: found[name] for name in found}, found.step
    reader = TextReader.find(folder)
    seq_length, context = resolve_lengths(architecture.max_position_embeddings, None, None)
    record = {
        "format": FORMAT,
        "strategy": "diagonal",
        "lambda_scale": SCALE,
        "model": {"path": str(final.absolute()), "identity": weights_fingerprint(folder)},
        "modules": {name: list(layer["Lambda"].shape) for name, layer in layers.items()},
        "adam": {"checkpoint": str(checkpoint.folder.absolute()), "step": step},
        "seq_length": seq_length,
        "context": context,
        **({} if reader is None else {"eod": reader.eod, "tokenizer": reader.record()}),
        "versions": versions(),
        **origin(),
    }
    (folder / FOLDER).mkdir()
    save_factors(folder / FOLDER, layers, record)
    return {"adam_factors": str(final / FOLDER), "adam_step": step}
