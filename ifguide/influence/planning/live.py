"""The numbers that live at once while a batch goes through a model without a graph, counted tensor by tensor.

Each function names the tensors of one place; a pass holds the most where the largest of these sums is. They are held
to what `benchmarks/device_memory.py` counts while passes run on shapes, for blocks like GPT-NeoX's, Llama's and GPT-2's
(tests/influence/planning/test_memory.py).

Shapes: N positions (B windows of T tokens), H hidden, M the widest layer, A numbers of a position's queries, C of its
keys; K directions, 0 in a pass without tangents. A tensor with tangents counts 1 + K times.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifguide.influence.planning.shape import Shape
from ifguide.models.attention import piece


@dataclass(frozen=True)
class BatchSize:
    """The largest batch: B windows of T positions on a device, "cpu" or "cuda"."""

    rows: int
    columns: int
    device: str

    @property
    def positions(self) -> int:
        return self.rows * self.columns


# of a nonlinearity that is made of elementary operations torch takes the tangents in float32, whatever is given
_IN_HALF = 1.5


def widest(shape: Shape, batch: BatchSize, directions: int = 0, beside: int = 0, half: bool = False) -> int:
    """At the widest place of a block.

    Args:
        directions: K.
        beside: hidden states [N, H] of another pass that wait meanwhile.
        half: the numbers are bfloat16.
    """
    return batch.positions * beside * shape.hidden + max(
        batch.positions * _middle(shape, directions, half), _attention(shape, batch, directions)
    )


def _residual(shape: Shape, directions: int, parts: int) -> int:
    """The embeddings, which the model keeps a name for, and ``parts`` of the residual stream."""
    return shape.hidden * (1 + parts * (1 + directions))


def _middle(shape: Shape, directions: int, half: bool) -> int:
    """At the nonlinearity: the residual, the attention's output, their norm, and what the nonlinearity works with."""
    alone, primal, tangent = shape.alive
    work = primal + tangent * directions if directions else alone
    if half and directions and shape.nonlinearity > 1:
        work = round(_IN_HALF * work)
    return _residual(shape, directions, 3) + work * shape.widest


def _attention(shape: Shape, batch: BatchSize, directions: int) -> int:
    """In the attention, after the queries are rotated."""
    queries, keys = shape.attention_width, shape.key_value_heads * shape.head_width
    both = 1 + directions
    kept = _residual(shape, directions, 2) + both * (queries + 2 * keys)
    if shape.fused and shape.rotary:  # what one layer gives stays whole beside the rotated parts
        kept += both * (queries + keys)
    if shape.key_value_heads < shape.heads:
        kept += both * 2 * queries  # keys and values for each head
    if not directions:  # the fused kernel's output, and once more in the order of the next layer
        return batch.positions * (kept + 2 * queries)
    # scaled queries, outputs, and both sides of [Q' Q] [K K']^T
    kept += 2 * both * queries + 4 * directions * queries
    if directions > 1:
        kept += directions * queries  # the values' tangents, side by side
    sequences, rows = piece(batch.rows, shape.heads, batch.columns, batch.device)
    # scores, weights, and the shifts of this piece and of the one before
    shifts = 1 if sequences == batch.rows and rows == batch.columns else 2
    elements = sequences * shape.heads * rows * batch.columns * (2 + shifts * directions)
    # result and tangent of a piece, and what the tangent is added up from
    parts = sequences * rows * queries * (1 + 4 * directions)
    return batch.positions * kept + elements + parts
