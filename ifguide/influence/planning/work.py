"""How much there is to compute: the dataset's documents as windows and batches, and the operations of each phase.

Operations are floating-point ones of the matrix products, which a forward pass consists of: 2 per weight and position.

Shapes: K directions, R rank, B windows, T positions of a batch, H hidden, V vocabulary, O outputs, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifguide.influence.batches import group_by_length
from ifguide.influence.curvature.partitions import WHOLE, Partitions
from ifguide.influence.options import Method
from ifguide.influence.planning.shape import Shape
from ifguide.influence.windows import Windows

# batches of so many windows are formed; those of a larger dataset are taken to be alike
_LOOKED_AT = 1 << 16


@dataclass(frozen=True)
class Work:
    """A pass over windows.

    Attributes:
        windows: how many.
        scored: labels, each of which counts once.
        positions: inputs of all windows: ``scored`` and what overlapping windows see again.
        padded: positions of all batches, padding included.
        squares: Σ B·T² of all batches, which attention costs.
        longest: positions of the longest window.
    """

    windows: int
    scored: int
    positions: int
    padded: float
    squares: float
    longest: int

    @property
    def padding(self) -> float:
        """Share of the computed positions that are padding."""
        return 1 - self.positions / self.padded if self.padded else 0.0

    @property
    def overlap(self) -> float:
        """Positions seen as context alone, as a share of the scored ones."""
        return self.positions / self.scored - 1 if self.scored else 0.0


def measure(windows: Windows, batch_tokens: int, tokens_per_shard: int | None = None) -> Work:
    """The work of a pass over ``windows`` in batches of ``batch_tokens``, formed inside each shard.

    Padding is counted on evenly spread shards (or windows) where the dataset is large.
    """
    lengths = windows.lengths
    if not len(lengths):
        return Work(0, 0, 0, 0.0, 0.0, 0)
    if tokens_per_shard is None:
        pieces = [lengths[:: -(-len(lengths) // _LOOKED_AT)]]
    else:
        slices = [piece.windows for piece in windows.pieces(tokens_per_shard)]
        wanted = max(1, _LOOKED_AT * len(slices) // len(lengths))
        pieces = [lengths[which] for which in slices[:: -(-len(slices) // wanted)]]
    looked_at = sum(int(piece.sum()) for piece in pieces)
    padded, squares = 0, 0
    for piece in pieces:
        for group in group_by_length(piece, batch_tokens):
            longest = int(piece[group[0]])
            padded += len(group) * longest
            squares += len(group) * longest * longest
    scale = int(lengths.sum()) / looked_at
    return Work(
        len(lengths),
        int(windows.scored.sum()),
        int(lengths.sum()),
        padded * scale,
        squares * scale,
        int(lengths.max()),
    )


def of_batch(labelled: int, rows: int, columns: int) -> Work:
    """One batch [B, T] as work."""
    return Work(rows, labelled, rows * columns, rows * columns, rows * columns**2, columns)


def forward(shape: Shape, work: Work) -> float:
    """Operations of a plain forward pass up to the last hidden states."""
    return 2 * shape.linear * work.padded + 4 * shape.blocks * shape.attention_width * work.squares


def head(shape: Shape, work: Work) -> float:
    """Logits and the way back from them: H·V twice."""
    return 4 * shape.vocab * shape.hidden * work.scored


def scoring(shape: Shape, work: Work, method: Method, directions: int) -> float:
    """Operations of the scoring pass along K directions."""
    plain, last = forward(shape, work), head(shape, work)
    if method.attribution == "loss-term" and method.method == "difference":
        if method.one_sided:
            return (directions + 1) * plain + last
        return directions * (2 * plain + last)
    attention = plain - 2 * shape.linear * work.padded
    products = 2 * (shape.matrices if method.rank is None else method.rank * shape.sides) * work.padded
    if method.attribution == "position":
        # the way back through every layer and twice the attention, and the products with v
        return plain + (plain - attention) + 2 * attention + last + directions * products
    # each direction carries its own tangent through every layer, and twice the attention
    return plain + last + directions * ((plain - attention) + 2 * attention + products)


def direction(shape: Shape, tokens: int, strategy: str, directions: int) -> float:
    """Operations of the gradients of queries of ``tokens`` in all (M1), a forward pass, once again on the way back, and
    twice as much back, and of each direction's H~^-1. Queries are short: their attention costs next to nothing."""
    gradients = (4 * 2 * shape.linear + 4 * shape.vocab * shape.hidden) * tokens
    if strategy not in ("ekfac", "kfac"):
        return gradients
    return gradients + directions * 4 * sum(o * i * (o + i) for o, i in shape.tracked.values())


def fitting(shape: Shape, work: Work, strategy: str, cut: Partitions = WHOLE) -> dict[str, float]:
    """Operations of each phase of fit-factors, as it is ``cut``; the eigendecomposition in terms of n³."""
    if strategy == "identity":
        return {}
    plain = forward(shape, work)
    attention = plain - 2 * shape.linear * work.padded
    # forward with logits, then back through activations: the model's own weights get no gradient
    both = 2 * plain + attention + head(shape, work)
    phases = {}
    if strategy in ("ekfac", "kfac"):
        phases["covariances"] = cut.covariances * both + 2 * shape.squares * work.padded
        phases["eigendecomposition"] = float(sum(o**3 + i**3 for o, i in shape.tracked.values()))
    if strategy in ("ekfac", "diagonal"):
        phases["second moments"] = cut.second_moments * both + 2 * shape.matrices * work.padded
    if strategy == "ekfac":
        phases["second moments"] += 2 * work.windows * sum(o * i * (o + i) for o, i in shape.tracked.values())
    return phases


def middle_batch(windows: Windows, batch_tokens: int, tokens_per_shard: int) -> np.ndarray:
    """Windows of the batch in the middle of the work of a shard in the middle of the data."""
    slices = [piece.windows for piece in windows.pieces(tokens_per_shard)]
    which = slices[len(slices) // 2]
    first = which.start
    lengths = windows.lengths[which]
    groups = group_by_length(lengths, batch_tokens)
    done = np.cumsum([len(group) * int(lengths[group[0]]) for group in groups])
    return first + groups[int(np.searchsorted(done, done[-1] / 2))]
