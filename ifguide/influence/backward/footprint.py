"""What a backward pass holds on the device beside the weights, from the sizes of the model.

Counted in `benchmarks/device_memory.py`: within a few percent for blocks like GPT-NeoX's and Llama's.

Shapes: N positions (B windows of T tokens, all labelled), H hidden, V vocabulary; of the attention A = heads x width
for the queries and C = heads x width for the keys; M outputs of a block's widest layer.
"""

from __future__ import annotations

from ifguide.influence.curvature.partitions import FitSizes, windows_at_once
from ifguide.influence.head import rows_at_a_time
from ifguide.influence.planning.shape import Shape

DRAWN_ELEMENTS = 1 << 24
"""Elements of [N, V] that labels are drawn from at a time; each is several times as wide as a logit."""
_FP32 = 4
# a probability, the same in integer units, and the sum up to there
_DRAWN = 4 + 8 + 8


def kept_by_block(shape: Shape, tracked: bool) -> int:
    """Numbers per position that a block's graph keeps for the way back.

    Norms keep the residual. Attention keeps queries and keys, values (all that one layer gives for the three, where
    there is one, beside queries and keys if these are rotated) and its output. The middle keeps what its nonlinearity
    takes, and where it is gated both factors. Linear layers keep what they take, if they are ``tracked``, that is if
    their weights get gradients.
    """
    queries, keys = shape.attention_width, shape.key_value_heads * shape.head_width
    values = queries + 2 * keys if shape.fused else keys
    rotated = queries + keys if shape.rotary or not shape.fused else 0
    residuals = (1 if shape.parallel else 2) * shape.hidden
    middle = (2 * shape.gated + shape.nonlinearity) * shape.widest
    graph = residuals + queries + rotated + values + middle
    return graph + (2 * shape.hidden + queries + shape.widest if tracked else 0)


def backward_bytes(
    shape: Shape, positions: int, device: str, *, tracked: bool, run_again: bool = False, drawn: bool = False,
    width: int = _FP32,
) -> int:  # fmt: skip
    """Bytes at the peak of a backward pass over N ``positions``: its graph, then the head or the widest layer.

    Args:
        tracked: weights get gradients, one layer's at a time.
        run_again: blocks keep their inputs alone (`gradients.blocks_run_again`).
        drawn: labels are drawn from the logits.
        width: of activations.
    """
    one = positions * kept_by_block(shape, tracked)
    hidden, widest = positions * shape.hidden, positions * shape.widest
    kept, again = (shape.blocks * hidden, one) if run_again else (shape.blocks * one, 0)
    gradient = max(o * i for o, i in shape.tracked.values()) if tracked else 0
    # the gradient at the nonlinearity, what it comes from, and what comes of it
    on_the_way = again + hidden + widest + max(widest, gradient)
    rows = min(positions, rows_at_a_time(device, shape.vocab))
    drawn_from = min(rows, max(1, DRAWN_ELEMENTS // shape.vocab)) * shape.vocab if drawn else 0
    at_the_head = width * 4 * hidden + _FP32 * rows * shape.vocab + _DRAWN * drawn_from
    return width * kept + max(width * on_the_way, at_the_head)


def fit_sizes(shape: Shape, rows: int, columns: int, device: str) -> FitSizes:
    """Of a fit whose largest batch has ``rows`` windows of ``columns`` positions."""
    layers = list(shape.tracked.values())
    rows = min(rows, windows_at_once(layers))
    working = backward_bytes(shape, rows * columns, device, tracked=False, drawn=True)
    return FitSizes(layers, rows * columns, rows, working)
