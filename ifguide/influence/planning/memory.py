"""The most memory that a process of each job holds at once, item by item.

The items follow what the code keeps; the factors are rough ones (an allocator wastes some), good to about a third.

Shapes: K directions, R rank, B windows, T positions of a batch, N labelled positions, H hidden, V vocabulary,
        O outputs and I inputs of a tracked layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ifguide.influence import head
from ifguide.influence.batches import rows_of_a_piece
from ifguide.influence.curvature.fit import PER_WINDOW_GRADIENT_BYTES
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


def fitting_peaks(shape: Shape, strategy: str, batch: BatchSize) -> list[Peak]:
    """Of fit-factors; its factors are float32."""
    weights = _FP32 * shape.parameters
    if strategy == "identity":
        return [_peak("load", batch, {"weights": weights})]
    graph = _graph(shape, batch) + _head_graph(shape, batch.positions)
    largest = max(o * i for o, i in shape.tracked.values())
    peaks = []
    if strategy in ("ekfac", "kfac"):
        peaks.append(
            _peak(
                "covariances", batch, {"weights": weights, "covariances": _FP32 * shape.squares, "activations": graph}
            )
        )
        side = max(max(pair) for pair in shape.tracked.values())
        peaks.append(
            _peak(
                "eigendecomposition",
                batch,
                {"weights": weights, "one decomposition (float64)": 5 * _FP64 * side * side},
                {"covariances and bases": 2 * _FP32 * shape.squares},
            )
        )
    if strategy in ("ekfac", "diagonal"):
        rows = min(batch.rows, max(1, PER_WINDOW_GRADIENT_BYTES // (_FP32 * largest)))
        bases = _FP32 * shape.squares if strategy == "ekfac" else 0
        moments = {
            "weights": weights,
            "bases": bases,
            "second moments": _FP32 * shape.matrices,
            "gradient of each window": 3 * _FP32 * rows * largest,
            "activations": graph,
        }
        peaks.append(_peak("second moments", batch, moments))
    return peaks


def pass_peak(shape: Shape, method: Method, directions: int, batch: BatchSize) -> Peak:
    """Of score: the pass along K directions by a settled ``method``."""
    width = BYTES[method.dtype]
    batch = replace(batch, rows=rows_of_a_piece(batch.device, batch.rows, batch.columns))
    items = {"weights": width * shape.parameters}
    matrices = width * (shape.matrices if method.rank is None else min(method.rank * shape.sides, shape.matrices))
    kept = matrices * directions
    if method.attribution == "position":
        items["directions"] = kept
        items["activations"] = width * batch.positions * (shape.saved + 4 * shape.blocks * shape.hidden)
    elif method.method == "difference":
        items["moved weights"] = directions * (1 if method.one_sided else 2) * width * shape.matrices
        items["activations"] = round(_WASTE * width * batch.positions * _live(shape))
    else:
        items["tangents of the weights"] = kept
        items["activations"] = round(_WASTE_JVP * width * batch.positions * _live(shape) * (1 + directions))
        items["attention chunk"] = width * _attention_elements(shape, batch, directions)
    items["last hidden states"] = width * batch.positions * shape.hidden * (2 + directions)
    items["head chunk"] = width * head.rows_at_a_time(batch.device, shape.vocab) * shape.vocab
    # what the directions were made from, or what the moved weights were made of
    host = {"directions, whole": _FP32 * directions * shape.matrices}
    name = "position" if method.attribution == "position" else method.method
    return _peak(f"scoring pass ({name})", batch, items, host)


def direction_peak(shape: Shape, directions: int, strategy: str, batch: BatchSize, query_positions: int) -> Peak:
    """Of score: ordinary backward passes over batches of queries, or H~^-1, whichever is more."""
    positions = min(batch.positions, query_positions)
    gradients = _graph(shape, BatchSize(1, positions, batch.device)) + _head_graph(shape, positions)
    inverse = 0
    if strategy in ("ekfac", "kfac"):
        inverse = max(_FP64 * (o * o + i * i + 4 * o * i) for o, i in shape.tracked.values())
    items = {
        "weights": _FP32 * shape.parameters,
        "gradients": 4 * _FP32 * shape.matrices,
        "directions": _FP32 * directions * shape.matrices,
        "activations of the queries, or one layer's factors (float64)": max(gradients, inverse),
    }
    return _peak("direction", batch, items)


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


def _graph(shape: Shape, batch: BatchSize) -> int:
    """Bytes of the activations that a backward pass keeps: what linear layers take and give, norms and residuals."""
    return _FP32 * batch.positions * (shape.saved + 4 * shape.blocks * shape.hidden)


def _head_graph(shape: Shape, labelled: int) -> int:
    """Bytes of logits, their log-softmax and their gradient."""
    return 3 * _FP32 * labelled * shape.vocab


def _attention_elements(shape: Shape, batch: BatchSize, directions: int) -> int:
    """Scores, weights and the tangents of one piece of the attention."""
    row = shape.heads * batch.columns
    return (2 + directions) * max(row, min(row * batch.positions, attention._ELEMENTS[batch.device]))
