"""Sequences of unequal length as padded batches with hardly any padding.

Shapes: B sequences, T positions (the longest of the batch).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

NO_LABEL = -100
MAX_PADDING = 0.05
BACKWARD_TOKENS = 4096
"""Padded tokens of a backward pass, on every device: what it keeps grows with them, and from a few thousand on the
products of a layer fill a GPU, so more are no faster. A single longer sequence is not cut."""
# padded tokens that a pass works on at a time: on a CPU more are no faster and only take memory
_PIECE_TOKENS = {"cpu": 4096}


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded sequences: position t of ``inputs`` predicts ``labels`` at t.

    Attributes:
        inputs: int64[B, T], 0 where padded.
        labels: int64[B, T], `NO_LABEL` where padded and where a position is only context.
        real: bool[B, T], False where padded.
    """

    inputs: Tensor
    labels: Tensor
    real: Tensor

    @property
    def labelled(self) -> Tensor:
        """bool[B, T]: the positions whose loss is wanted."""
        return self.labels != NO_LABEL

    def to(self, device: torch.device) -> Batch:
        return Batch(self.inputs.to(device), self.labels.to(device), self.real.to(device))

    def pieces(self, backward: bool = False) -> list[Batch]:
        """Its sequences a few at a time, as suits the device, or a ``backward`` pass."""
        count, columns = self.inputs.shape
        rows = rows_of_a_piece(self.inputs.device.type, count, columns, backward)
        split = (tensor.split(rows) for tensor in (self.inputs, self.labels, self.real))
        return [Batch(*tensors) for tensors in zip(*split, strict=True)]


def rows_of_a_piece(device: str, rows: int, columns: int, backward: bool = False) -> int:
    """How many rows of a batch [rows, columns] a pass works on at a time."""
    limit = BACKWARD_TOKENS if backward else _PIECE_TOKENS.get(device, rows * columns)
    return max(1, min(rows, limit // max(1, columns)))


def in_pieces(scores: Callable[[Any, Batch], Tensor]) -> Callable[[Any, Batch], Tensor]:
    """Make a method that gives ``s``[K, B, T] of a batch work on its pieces, one after the other."""
    return _in_pieces(scores, backward=False)


def in_backward_pieces(scores: Callable[[Any, Batch], Tensor]) -> Callable[[Any, Batch], Tensor]:
    """`in_pieces` for a method that goes back: its pieces are small on every device."""
    return _in_pieces(scores, backward=True)


def _in_pieces(scores: Callable[[Any, Batch], Tensor], backward: bool) -> Callable[[Any, Batch], Tensor]:
    @functools.wraps(scores)
    def pieced(self: Any, batch: Batch) -> Tensor:
        pieces = batch.pieces(backward)
        return scores(self, batch) if len(pieces) == 1 else torch.cat([scores(self, piece) for piece in pieces], dim=1)

    return pieced


def collate(inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Batch:
    """Pad sequences (each with as many labels as inputs) on the right to the longest one."""
    shape = (len(inputs), max(map(len, inputs)))
    padded_inputs = np.zeros(shape, dtype=np.int64)
    padded_labels = np.full(shape, NO_LABEL, dtype=np.int64)
    real = np.zeros(shape, dtype=bool)
    for row, (sequence, targets) in enumerate(zip(inputs, labels, strict=True)):
        padded_inputs[row, : len(sequence)] = sequence
        padded_labels[row, : len(targets)] = targets
        real[row, : len(sequence)] = True
    return Batch(torch.from_numpy(padded_inputs), torch.from_numpy(padded_labels), torch.from_numpy(real))


def group_by_length(lengths: np.ndarray, max_tokens: int, max_rows: int | None = None) -> list[np.ndarray]:
    """Indices into ``lengths`` in batches of similar length, longest first.

    A batch, padded, has at most ``max_tokens`` tokens (or one sequence) and ``max_rows`` sequences. Its padding is at
    most `MAX_PADDING` of it, or half of that of a full batch: the few short sequences at the end would otherwise
    make many tiny batches. The result depends on nothing but the arguments.
    """
    spare = MAX_PADDING / 2 * max_tokens
    order = np.argsort(-lengths, kind="stable")
    groups = []
    start, tokens = 0, 0
    for stop, length in enumerate(lengths[order].tolist()):
        rows = stop - start + 1
        padded = rows * int(lengths[order[start]])
        full = padded > max_tokens or (max_rows is not None and rows > max_rows)
        wasteful = padded - tokens - length > max(MAX_PADDING * padded, spare)
        if rows > 1 and (full or wasteful):
            groups.append(order[start:stop])
            start, tokens = stop, 0
        tokens += length
    if len(order):
        groups.append(order[start:])
    return groups
