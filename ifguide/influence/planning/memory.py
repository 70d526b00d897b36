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
from ifguide.influence.planning.live import BatchSize, widest
from ifguide.influence.planning.shape import BYTES, Shape

# the interpreter, torch and transformers once imported and used; a CUDA context on the device
_LIBRARIES = 200 << 20
_CONTEXT = 600 << 20
WASTED = "what the allocator wastes"
# as a share of the live activations: measured on a CPU with both passes, taken as a tenth on a GPU
_WASTE = {"cpu": 0.8, "cuda": 0.1}
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
    rows = min(batch.positions, head.rows_at_a_time(batch.device, shape.vocab))
    # the head's work is in float32, whatever the weights are
    copy = shape.vocab * shape.hidden if width < _FP32 else 0
    at_the_head = {"head chunk": _FP32 * (rows * shape.vocab + copy)}
    states = width * batch.positions * shape.hidden
    if goes_back:
        items["directions"] = kept
        items["activations"] = width * batch.positions * _kept_by_positions(shape, method, directions)
        items |= {"last hidden states": (2 + directions) * states, **at_the_head}
    else:
        if method.method == "difference":
            items["moved weights"] = directions * (1 if method.one_sided else 2) * width * shape.matrices
            # what the pass before ended with, and one-sided its gradient; of the direction before, also the change
            beside = 3 if directions > 1 else 2 if method.one_sided else 1
            in_a_block = width * widest(shape, batch, beside=beside)
            at_the_head["last hidden states"] = 2 * states
        else:
            items["tangents of the weights"] = kept
            in_a_block = width * widest(shape, batch, directions, half=width < _FP32)
            # all of them, and those with a label
            at_the_head["last hidden states"] = (2 + directions) * states
        at_the_head["gradient at the states"] = _FP32 * batch.positions * shape.hidden
        if in_a_block > sum(at_the_head.values()):
            items["activations"] = in_a_block
        else:
            items |= at_the_head
        items[WASTED] = round(_WASTE[batch.device] * in_a_block)
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


def _kept_by_positions(shape: Shape, method: Method, directions: int) -> int:
    """Numbers per position that position scores keep: the graph, and what each layer took or what became of that."""
    graph = kept_by_block(shape, tracked=False)
    if method.rank is not None:
        return shape.blocks * graph + directions * method.rank * len(shape.tracked)
    taken = kept_by_block(shape, tracked=True) - graph
    # the layer that narrows keeps its products where these are fewer
    return shape.blocks * (graph + taken - max(0, shape.widest - directions * shape.hidden))
