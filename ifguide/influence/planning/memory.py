"""The most memory that a process of each job holds at once, item by item.

The items follow what the code keeps; the factors are rough ones (an allocator wastes some), good to about a third.

Shapes: K directions, R rank, B windows, T positions of a batch, N labelled positions, H hidden, V vocabulary,
        O outputs and I inputs of a tracked layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ifguide.influence import head
from ifguide.influence.backward.footprint import backward_bytes, fit_sizes, kept_by_block
from ifguide.influence.batches import BACKWARD_TOKENS, rows_of_a_piece
from ifguide.influence.curvature.partitions import (
    FitSizes,
    Partitions,
    choose_partitions,
    covariance_bytes,
    second_moment_bytes,
)
from ifguide.influence.options import Method
from ifguide.influence.planning.shape import BYTES, Shape
from ifguide.models import attention

# the interpreter, torch and transformers once imported and used; a CUDA context on the device
_LIBRARIES = 200 << 20
_CONTEXT = 600 << 20
# memory that an allocator holds for a pass, over what its live tensors need: measured with both attentions
_WASTE, _WASTE_JVP = 1.8, 2.4
_FP32, _FP64 = 4, 8


@dataclass
class Peak:
    """Memory of one process at the moment when it holds the most.

    Attributes:
        phase: what it is doing.
        device: item -> bytes on the device that computes.
        host: item -> bytes beside it; part of the same memory where the device is the CPU.
    """

    phase: str
    device: dict[str, int] = field(default_factory=dict)
    host: dict[str, int] = field(default_factory=dict)

    @property
    def device_bytes(self) -> int:
        return sum(self.device.values())

    @property
    def host_bytes(self) -> int:
        return sum(self.host.values())


@dataclass(frozen=True)
class BatchSize:
    """The largest batch: B windows of T positions on a device, "cpu" or "cuda"."""

    rows: int
    columns: int
    device: str

    @property
    def positions(self) -> int:
        return self.rows * self.columns


def fitting_peaks(shape: Shape, strategy: str, batch: BatchSize, free: int | None = None) -> list[Peak]:
    """Of fit-factors; its factors are float32.

    Args:
        free: bytes of the device, by which the fit is cut (None: a fit on a CPU is not).
    """
    weights = {"weights": _FP32 * shape.parameters}
    if strategy == "identity":
        return [_peak("load", batch, weights)]
    cut, sizes = fitting_partitions(shape, strategy, batch, free), _fit_sizes(shape, batch)
    peaks = []
    if strategy in ("ekfac", "kfac"):
        phase = "covariances" + _in_parts(cut.covariances)
        beside = covariance_bytes(sizes, cut.covariances) - sizes.working
        peaks.append(_peak(phase, batch, {**weights, "covariances": beside, "activations": sizes.working}))
        side = max(max(pair) for pair in shape.tracked.values())
        peaks.append(
            _peak(
                "eigendecomposition",
                batch,
                {**weights, "one decomposition (float64)": 5 * _FP64 * side * side},
                {"covariances and bases": 2 * _FP32 * shape.squares},
            )
        )
    if strategy in ("ekfac", "diagonal"):
        beside = second_moment_bytes(sizes, strategy, cut.second_moments, cut.offload) - sizes.working
        items = {**weights, "bases, second moments, gradients": beside, "activations": sizes.working}
        bases = 2 * shape.squares if strategy == "ekfac" else 0
        host = {"bases and second moments": _FP32 * (shape.matrices + bases)}
        if cut.offload:
            host["activations that wait"] = _FP32 * sizes.batch * sum(i for _, i in sizes.layers)
        peaks.append(_peak("second moments" + _in_parts(cut.second_moments), batch, items, host))
    return peaks


def fitting_partitions(shape: Shape, strategy: str, batch: BatchSize, free: int | None) -> Partitions:
    """How fit-factors will cut the fit on a device of which ``free`` bytes are free before the weights are there."""
    if free is not None:
        free = max(0, free - _FP32 * shape.parameters - _CONTEXT)
    return choose_partitions(_fit_sizes(shape, batch), strategy, free)


def _fit_sizes(shape: Shape, batch: BatchSize) -> FitSizes:
    rows = rows_of_a_piece(batch.device, batch.rows, batch.columns, backward=True)
    return fit_sizes(shape, rows, batch.columns, batch.device)


def _in_parts(count: int) -> str:
    return f", {count} partitions" if count > 1 else ""


def pass_peak(shape: Shape, method: Method, directions: int, batch: BatchSize) -> Peak:
    """Of score: the pass along K directions by a settled ``method``."""
    width = BYTES[method.dtype]
    goes_back = method.attribution == "position"
    batch = replace(batch, rows=rows_of_a_piece(batch.device, batch.rows, batch.columns, goes_back))
    items = {"weights": width * shape.parameters}
    matrices = width * (shape.matrices if method.rank is None else min(method.rank * shape.sides, shape.matrices))
    kept = matrices * directions
    if goes_back:
        items["directions"] = kept
        # the inputs of layers are kept as where their weights get gradients
        items["activations"] = width * batch.positions * shape.blocks * kept_by_block(shape, tracked=True)
    elif method.method == "difference":
        items["moved weights"] = directions * (1 if method.one_sided else 2) * width * shape.matrices
        items["activations"] = round(_WASTE * width * batch.positions * _live(shape))
    else:
        items["tangents of the weights"] = kept
        items["activations"] = round(_WASTE_JVP * width * batch.positions * _live(shape) * (1 + directions))
        items["attention chunk"] = width * _attention_elements(shape, batch, directions)
    items["last hidden states"] = width * batch.positions * shape.hidden * (2 + directions)
    rows = min(batch.positions, head.rows_at_a_time(batch.device, shape.vocab))
    # the head's work is in float32, whatever the weights are
    copy = shape.vocab * shape.hidden if width < _FP32 else 0
    items["head chunk"] = _FP32 * (rows * shape.vocab + copy)
    # what the directions were made from, or what the moved weights were made of
    host = {"directions, whole": _FP32 * directions * shape.matrices}
    return _peak(f"scoring pass ({'position' if goes_back else method.method})", batch, items, host)


def direction_peak(shape: Shape, directions: int, strategy: str, batch: BatchSize, query_positions: int) -> Peak:
    """Of score: the signed backward pass over batches of queries, or H~^-1 of a layer, whichever is more."""
    positions = min(batch.positions, query_positions, max(batch.columns, BACKWARD_TOKENS))
    backward = backward_bytes(shape, positions, batch.device, tracked=True, run_again=True)
    inverse = 0
    if strategy in ("ekfac", "kfac"):
        inverse = max(inverse_bytes(o, i) for o, i in shape.tracked.values())
    items = {
        "weights": _FP32 * shape.parameters,
        "a backward pass, or one layer's factors (float64)": max(backward, inverse),
    }
    # sums of the gradients, each of which becomes a direction
    return _peak("direction", batch, items, {"directions, whole": _FP32 * directions * shape.matrices})


def inverse_bytes(outputs: int, inputs: int) -> int:
    """Of H~^-1 of one layer's gradient ``[O, I]``: both bases, and four matrices of its size, in float64."""
    return _FP64 * (outputs**2 + inputs**2 + 4 * outputs * inputs)


def _peak(phase: str, batch: BatchSize, device: dict[str, int], host: dict[str, int] | None = None) -> Peak:
    libraries = {"interpreter and libraries": _LIBRARIES}
    if batch.device == "cuda":
        return Peak(phase, {**device, "CUDA context": _CONTEXT}, {**(host or {}), **libraries})
    return Peak(phase, {**device, **(host or {}), **libraries})


def _live(shape: Shape) -> int:
    """Numbers per position that a block without a graph holds at its widest place.

    The residual and two more of H, then what the MLP is at, or the attention with its queries, keys and values
    before and after the rotation.
    """
    mlp = (3 if shape.gated else 2) * shape.widest
    rotated = 4 * shape.attention_width + 4 * shape.key_value_heads * shape.head_width
    return 3 * shape.hidden + max(mlp, rotated)


def _attention_elements(shape: Shape, batch: BatchSize, directions: int) -> int:
    """Scores, weights and the tangents of one piece of the attention."""
    row = shape.heads * batch.columns
    return (2 + directions) * max(row, min(row * batch.positions, attention._ELEMENTS[batch.device]))
