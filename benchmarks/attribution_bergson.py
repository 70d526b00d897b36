"""bergson beside this project, where it is installed: its forward-mode scores of every loss term.

It is asked for what `token_influence="output"` computes, by the functions that do so, with the direction of this run.
Its other way to score tokens holds one gradient of the tracked weights per token, which no window of this size fits.

Shapes: B windows, T positions, N positions, O outputs, I inputs with the bias column.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction
from ifguide.models.tracked import ScoredModel

INSTALL = (
    "pip install --no-deps bergson==2.5.1 jaxtyping wadler-lindig peft petname simple-parsing docstring-parser "
    "natsort ml_dtypes torchopt optree"
)


def bergson_scores(model: ScoredModel, direction: Direction, folder: Path) -> tuple[str, Callable[[Batch], Tensor]]:
    """The version, and a function from a batch to its scores [B, T - 1]: the window's last label it cannot score.

    Args:
        model: loaded with the eager attention, which bergson's forward mode asks for.
        folder: where it may write.

    Raises:
        ImportError: it, or what it needs, is not installed.
    """
    from bergson.config.config import IndexConfig
    from bergson.score.output_influence import output_token_influence, query_directions

    base = model.model.base_model
    inner = {name: name.removeprefix(f"{model.model.base_model_prefix}.") for name in model.tracked}
    target = {
        inner[name]: (model.device, torch.Size(model.matrix_shape(name)), layer.bias is not None)
        for name, layer in model.tracked.items()
    }
    assert all(base.get_submodule(name) is not None for name in target)
    query = {inner[name]: matrix.reshape(-1, 1) for name, matrix in direction.items()}
    directions = query_directions(model.model, query, target)
    config = IndexConfig(run_path=str(folder / "bergson"))

    def scores(batch: Batch) -> Tensor:
        # in its layout position t of y is the token at t of x
        tokens = torch.cat([batch.inputs[:, :1], batch.labels[:, :-1]], dim=1)
        return output_token_influence(model.model, batch.inputs, tokens, directions, config)[0][..., 0]

    return importlib.metadata.version("bergson"), scores
