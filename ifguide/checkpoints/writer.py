"""Writing a NeoX checkpoint that NeoX loads for fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture
from ifguide.system.files import atomic_path, write_text
from ifguide.system.progress import Progress

TAG = "global_step0"


def write_checkpoint(
    save: Path,
    whole: Callable[[int], Mapping[str, Tensor]],
    architecture: Architecture,
    tensor_parallel: int,
    pipeline_parallel: int,
    arguments: Mapping[str, Any],
) -> None:
    """Write ``save/global_step0`` and ``save/latest``.

    Memory: one pipeline layer, or with ``pipeline_parallel`` 0, whose format is one file a rank, a rank's share of the
    model.

    Args:
        whole: pipeline layer -> its whole tensors; called once a layer, or once a layer and rank.
        arguments: what NeoX compares with its own configuration before it takes the weights.
    """
    folder = save / TAG
    folder.mkdir()
    layers = list(layout.parameters(architecture))
    ranks = range(tensor_parallel)

    def shards(layer: int) -> list[dict[str, Tensor]]:
        split = {
            name: layout.split(name, tensor, tensor_parallel, architecture) for name, tensor in whole(layer).items()
        }
        return [{name: parts[rank] for name, parts in split.items()} for rank in ranks]

    steps = len(layers) if pipeline_parallel else len(layers) * tensor_parallel
    with Progress(total=steps, unit="layers", label="write") as progress:
        if pipeline_parallel:
            for layer in layers:
                for rank, state in enumerate(shards(layer)):
                    _save(folder / layout.layer_file(layer, rank), state)
                progress.update(1)
            for rank in range(tensor_parallel * pipeline_parallel):
                _save(folder / layout.rank_file(rank), _state(None, tensor_parallel * pipeline_parallel, arguments))
        else:
            for rank in ranks:
                module: dict[str, Tensor] = {}
                for layer in layers:
                    module |= {f"sequential.{layer}.{name}": tensor for name, tensor in shards(layer)[rank].items()}
                    progress.update(1)
                _save(folder / layout.rank_file(rank), _state(module, tensor_parallel, arguments))
    write_text(save / "latest", TAG)


def _state(module: Mapping[str, Tensor] | None, world: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What DeepSpeed and NeoX read of a rank's state when they take nothing but weights."""
    return {
        "module": module,
        "buffer_names": [],
        "optimizer": None,
        "lr_scheduler": None,
        "skipped_steps": 0,
        "global_steps": 0,
        "global_samples": 0,
        "dp_world_size": 1,
        "mp_world_size": world,
        "iteration": 0,
        "args": dict(arguments),
    }


def _save(path: Path, state: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)
