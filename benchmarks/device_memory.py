"""Bytes on the device at the peak of every backward pass, counted without a device and without weights, beside a plan.

Models of true size lie on torch's "meta" device: operations run on shapes alone, so a 12B model takes seconds. Every
storage that an operation makes is counted until it is freed, so the peaks are those of live tensors; what an allocator
wastes, a CUDA context and a library's workspace come on top. Attention is a stand-in that keeps what a fused kernel
keeps. "again" is the direction's pass (blocks run again, gradients leave layer by layer), "tracked" one in which every
block keeps its graph, "frozen" one without gradients of weights (a fit, position scores), "inverse" H~^-1 of the
largest layer. "plain" is what the direction's pass is held against: copies of the tracked weights take the gradients of
toxic, then of safe queries, both are kept, and logits come all at once. S is the model's weights in float32; peaks are
beside the weights.

    python benchmarks/device_memory.py                    all Pythia sizes, micro-batches of 64 x 64 and 2 x 2048 tokens
    python benchmarks/device_memory.py --models 1b --json
    python benchmarks/device_memory.py --stages           the peak of every stage with the weights, in S

With --stages each stage is as a user starts it: 16 windows of 2048 tokens a batch, pieces as on a GPU, EK-FAC factors,
one direction. It also runs in a checkout of an earlier version, into which this file is copied: what is counted is that
version's own code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_VOCABULARY = 50304
# hidden, layers, heads
PYTHIA = {
    "160m": (768, 12, 12),
    "410m": (1024, 24, 16),
    "1b": (2048, 16, 8),
    "1.4b": (2048, 24, 16),
    "2.8b": (2560, 32, 32),
    "6.9b": (4096, 32, 32),
    "12b": (5120, 36, 40),
}
_BATCHES = ((64, 64), (2, 2048))
# windows of a batch by default, and their positions
_STARTED = (16, 2048)
_MODES = ("again", "tracked", "frozen")
ATTENTION = "ifguide_counted"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LiveBytes(TorchDispatchMode):
    """While entered, counts the storages that operations make until they are freed.

    Attributes:
        peak: the most bytes that lived at once.
    """

    def __init__(self, known: list[torch.Tensor]):
        super().__init__()
        self.peak = self._held = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1  # transformers asks whether positions are packed sequences: they are not
        if func is torch.ops.aten.index.Tensor and args[0].is_meta:
            args = (args[0], [each for index in args[1] for each in _all_places(index)])
        result = func(*args, **(kwargs or {}))
        storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tree_leaves(result) if _is_tensor(t)}
        new = {key: storage for key, storage in storages.items() if key not in self._known}
        for key, storage in new.items():
            if key not in self._live or self._live[key][0].expired():
                self._live[key] = (StorageWeakRef(storage), storage.nbytes())
                self._held += storage.nbytes()
        # those that are gone are looked for only where it matters
        if self._held > self.peak:
            self._live = {key: held for key, held in self._live.items() if not held[0].expired()}
            self._held = sum(size for _, size in self._live.values())
            self.peak = max(self.peak, self._held)
        return result

    def leaves(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor``, which goes to the host."""
        key = tensor.untyped_storage()._cdata
        self._held -= self._live.pop(key, (None, 0))[1]
        self._known.add(key)
        return tensor


def _all_places(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """A mask as what it would be if all of it were True: nobody knows how many places there are otherwise."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [torch.empty(index.numel(), dtype=torch.int64, device="meta") for _ in range(index.dim())]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


class _Fused(torch.autograd.Function):
    """An attention that computes nothing and keeps what a fused kernel keeps."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:3]))
        return output

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> tuple[Any, None]:
    """Of the same sizes as a fused one; to be registered as `ATTENTION`."""
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


def write_config(folder: Path, name: str, layers: int | None = None) -> Path:
    """``config.json`` of a Pythia model (with as many ``layers``), without weights."""
    from transformers import GPTNeoXConfig

    hidden, all_layers, heads = PYTHIA[name]
    layers = layers or all_layers
    GPTNeoXConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=_VOCABULARY, max_position_embeddings=2048, rotary_pct=0.25, architectures=["GPTNeoXForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    return folder


def count(model: Any, rows: int, columns: int, mode: str) -> int:
    """Bytes beside the weights at the peak of a backward pass over a batch of ``rows`` x ``columns`` labels."""
    import numpy as np

    from ifguide.influence.backward.gradients import go_back
    from ifguide.influence.batches import collate

    batch = collate(*([np.ones(columns, dtype=np.int64)] * rows for _ in range(2)))
    known = [*model.model.parameters(), *model.model.buffers()]
    with model.attention(ATTENTION), _as(model, mode), LiveBytes(known) as counted:
        go_back(model, batch)
    return counted.peak


@contextlib.contextmanager
def _as(model: Any, mode: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if mode == "frozen":
            for layer in model.tracked.values():
                handle = layer.register_forward_hook(_begin_here)
                stack.callback(handle.remove)
        else:
            from ifguide.influence.backward.gradients import blocks_run_again, gradients_to

            stack.enter_context(gradients_to(model, lambda name, is_bias, gradient: None))
            if mode == "again":
                stack.enter_context(blocks_run_again(model))
        yield


def _begin_here(module: Any, inputs: Any, output: torch.Tensor) -> None:
    if not output.requires_grad:
        output.requires_grad_()


def count_plain(model: Any, rows: int, columns: int) -> int:
    """Bytes beside the weights at the peak of two gradients that are kept and subtracted."""
    inputs = torch.ones(rows, columns, dtype=torch.int64, device="meta")

    def mean() -> dict[str, torch.Tensor]:
        copies = {name: tensor.clone().requires_grad_() for name, tensor in model.tracked_parameters().items()}
        logits = model.logits(model.hidden(inputs, copies).flatten(0, 1))
        torch.nn.functional.cross_entropy(logits, inputs.flatten(), reduction="none").sum().backward()
        return {name: joined(name, copies) for name in model.tracked}

    def joined(name: str, copies: dict[str, Any]) -> torch.Tensor:
        weight, bias = model.parameter_names(name)
        gradient: torch.Tensor = copies[weight].grad
        return gradient if bias is None else torch.cat([gradient, copies[bias].grad[:, None]], dim=1)

    known = [*model.model.parameters(), *model.model.buffers()]
    with model.attention(ATTENTION), LiveBytes(known) as counted:
        toxic, safe = mean(), mean()
        {name: toxic[name] - safe[name] for name in toxic}
    return counted.peak


@contextlib.contextmanager
def pieces_as_on_a_gpu() -> Iterator[None]:
    """While entered, work on shapes is cut as that on a GPU."""
    from ifguide.influence import head
    from ifguide.models import attention as tangents

    tables = (head._ELEMENTS, tangents._ELEMENTS)
    with contextlib.ExitStack() as stack:
        for table in tables:
            stack.enter_context(mock.patch.dict(table, {"meta": table["cuda"]}))
        yield


def count_pass(model: Any, method: Any, directions: int, rows: int, columns: int) -> int:
    """Bytes beside the weights at the peak of a scoring pass over one batch, all of whose positions have a label; with
    what the pass makes of its directions."""
    from ifguide.influence.passes import difference
    from ifguide.influence.passes.low_rank import LowRank
    from ifguide.influence.passes.method import make_pass

    model.model.to("meta", DTYPES[method.dtype])
    model = replace(model)  # which remembers a precision
    inputs = torch.empty(rows, columns, dtype=torch.int64, device="meta")
    batch = _batch(inputs)
    shapes = {name: model.matrix_shape(name) for name in model.tracked}
    known = [*model.model.parameters(), *model.model.buffers(), inputs, batch.labels, batch.real]

    def drawn() -> dict[str, Any]:
        if method.rank is None:
            found = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
            known.extend(found.values())
            return found
        sides = {name: [torch.empty(side, method.rank, device="meta") for side in shapes[name]] for name in shapes}
        known.extend(tensor for both in sides.values() for tensor in both)
        return {name: LowRank(*both) for name, both in sides.items()}

    given = [drawn() for _ in range(directions)]
    usual = type(model).attention
    fused = lambda self, name: usual(self, ATTENTION if name == "sdpa" else name)  # noqa: E731
    with (
        # a length is a number, and there is no autocast of shapes
        mock.patch.object(difference, "_norm", lambda *_: 1.0),
        mock.patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()),
        mock.patch.object(type(model), "attention", fused),
        LiveBytes(known) as counted,
    ):
        make_pass(model, given, method).scores(batch)
    return counted.peak


def _batch(inputs: torch.Tensor) -> Any:
    from ifguide.influence.batches import Batch

    return Batch(inputs, torch.empty_like(inputs), torch.empty_like(inputs, dtype=torch.bool))


def count_direction(model: Any, rows: int, columns: int) -> int:
    """Bytes beside the weights at the peak of a whole direction: ``rows`` toxic and as many safe queries of ``columns``
    labels in one batch, EK-FAC factors that come from the host."""
    import numpy as np

    from ifguide.influence import direction
    from ifguide.influence.options import Damping
    from ifguide.influence.queries import Query

    model.model.to("meta", torch.float32)
    model = replace(model)
    tokens = np.ones(columns, dtype=np.int64)
    toxic, safe = ([Query(tokens, labels, 1.0)] * rows for labels in (tokens, tokens + 1))
    known = [*model.model.parameters(), *model.model.buffers()]
    layers = {name: _factors(*model.matrix_shape(name)) for name in model.tracked}
    known += [tensor for layer in layers.values() for tensor in layer.values()]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(direction, "damped", lambda Lambda, *_: Lambda))
        if hasattr(direction, "HostGradients"):
            sums = {name: torch.empty(model.matrix_shape(name), device="meta") for name in model.tracked}
            known += sums.values()
            host = SimpleNamespace(matrices=sums, take=lambda *_: None)
            stack.enter_context(mock.patch.object(direction, "HostGradients", lambda model: host))
        stack.enter_context(model.attention(ATTENTION))
        counted = LiveBytes(known)
        if hasattr(direction, "HostGradients"):
            found = direction._precondition_layer
            to_host = lambda *given: counted.leaves(found(*given))  # noqa: E731
            stack.enter_context(mock.patch.object(direction, "_precondition_layer", to_host))
        stack.enter_context(counted)
        factors = SimpleNamespace(layers=layers)
        direction.compute_directions(model, factors, [(toxic, safe)], Damping(0.1, relative=False), rows * columns)
    return counted.peak


def count_fit(model: Any, rows: int, columns: int) -> int:
    """Bytes beside the weights at the peak of the pass that factors are fitted with: labels drawn from the model, no
    gradient of a weight. Covariances, and what kronfluence does in its hooks, are not in it."""
    from ifguide.influence.curvature import fit

    model.model.to("meta", torch.float32)
    model = replace(model)
    inputs = torch.empty(rows, columns, dtype=torch.int64, device="meta")
    uniform = torch.empty(rows * columns, dtype=torch.float64, device="meta")
    labels = torch.empty_like(inputs)
    known = [*model.model.parameters(), *model.model.buffers(), inputs, uniform, labels]
    loss = fit._loss(model, SimpleNamespace(update=lambda tokens: None))
    with model.attention(ATTENTION), _as(model, "frozen"), LiveBytes(known) as counted:
        loss({"inputs": inputs, "labels": labels, "uniform": uniform}, True).backward()
    return counted.peak


def _factors(outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    shapes = {"U_A": (inputs, inputs), "U_G": (outputs, outputs), "Lambda": (outputs, inputs)}
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def count_inverse(model: Any) -> int:
    """Bytes at the peak of (M1)'s H~^-1 of the largest layer by EK-FAC factors."""
    from ifguide.influence.curvature.store import Factors
    from ifguide.influence.direction import precondition
    from ifguide.influence.options import Damping

    name = max(model.tracked, key=lambda name: sum(side**2 for side in model.matrix_shape(name)))
    outputs, inputs = model.matrix_shape(name)
    tensors = _factors(outputs, inputs)
    gradient = torch.empty(outputs, inputs, device="meta")

    factors = Factors("ekfac", {name: tensors}, {}, "")
    with LiveBytes([gradient, *tensors.values()]) as counted:
        precondition({name: gradient}, factors, Damping(0.1, relative=False))
    return counted.peak


def measure(name: str) -> dict[str, Any]:
    """Counted and planned bytes of one model."""
    from ifguide.influence.backward.footprint import backward_bytes
    from ifguide.influence.planning.memory import inverse_bytes
    from ifguide.influence.planning.shape import shape_of
    from ifguide.models.tracked import describe_model

    with tempfile.TemporaryDirectory() as folder:
        model = describe_model(write_config(Path(folder), name))
    shape = shape_of(model)
    rows = []
    for mode in _MODES:
        for batch in _BATCHES:
            planned = backward_bytes(
                shape, batch[0] * batch[1], "cpu", tracked=mode != "frozen", run_again=mode == "again"
            )
            rows.append({"pass": mode, "batch": batch, "counted": count(model, *batch, mode), "planned": planned})
    for batch in ((64, 64), (16, 2048)):
        rows.append({"pass": "plain", "batch": batch, "counted": count_plain(model, *batch)})
    planned = inverse_bytes(*max(shape.tracked.values(), key=lambda pair: pair[0] ** 2 + pair[1] ** 2))
    rows.append({"pass": "inverse", "batch": None, "counted": count_inverse(model), "planned": planned})
    return {"model": name, "weights": 4 * shape.parameters, "peaks": rows}


def stages(name: str) -> dict[str, float]:
    """The peak of each stage in S, weights included."""
    from ifguide.influence.curvature import fit
    from ifguide.influence.options import Method
    from ifguide.models.tracked import describe_model

    with tempfile.TemporaryDirectory() as folder:
        model = describe_model(write_config(Path(folder), name))
    weights = 4 * sum(parameter.numel() for parameter in model.model.parameters())
    squares = sum(o * o + i * i for o, i in map(model.matrix_shape, model.tracked))
    windows, columns = _STARTED
    piece = getattr(sys.modules["ifguide.influence.batches"], "BACKWARD_TOKENS", windows * columns)
    fitted = min(windows, fit.max_windows(model), piece // columns)
    found: dict[str, float] = {"direction": (weights + count_direction(model, *_STARTED)) / weights}
    found["fit, covariances"] = (weights + count_fit(model, fitted, columns) + 4 * squares) / weights
    for way, method, count in (
        ("jvp", Method(method="jvp"), 1),
        ("jvp, bfloat16", Method(method="jvp", dtype="bfloat16"), 1),
        ("difference", Method(method="difference", step=1e-3), 1),
        ("position", Method(attribution="position"), 1),
        ("position, 2 directions", Method(attribution="position"), 2),
    ):
        width = 0.5 if method.dtype == "bfloat16" else 1.0
        found[way] = width + count_pass(model, method, count, *_STARTED) / weights
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=PYTHIA, default=list(PYTHIA))
    parser.add_argument("--stages", action="store_true", help="whole stages as they are started, in S")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    from ifguide.compat.transformers import register_attention

    register_attention(ATTENTION, attention)
    if args.stages:
        from ifguide.models import attention as tangents

        tangents.register()
        with pieces_as_on_a_gpu():
            found = {name: stages(name) for name in args.models}
        if args.json:
            print(json.dumps(found))
            return
        print(f"| peak in S | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
        for stage in next(iter(found.values())):
            print(f"| {stage} | " + " | ".join(f"{of_model[stage]:.2f}" for of_model in found.values()) + " |")
        return
    if args.json:
        print(json.dumps([measure(name) for name in args.models]))
        return
    print(f"{'model':<6}{'S':>9}  {'pass':<9}{'tokens':>9}{'counted':>11}{'in S':>7}{'planned':>11}{'':>8}")
    for model in map(measure, args.models):
        for row in model["peaks"]:
            size = "x".join(map(str, row["batch"])) if row["batch"] else ""
            print(
                f"{model['model']:<6}{model['weights'] / 1e9:>6.2f} GB  {row['pass']:<9}{size:>9}"
                f"{row['counted'] / 1e9:>8.2f} GB{row['counted'] / model['weights']:>7.2f}"
                + (
                    f"{row['planned'] / 1e9:>8.2f} GB{row['planned'] / row['counted'] - 1:>+8.1%}"
                    if "planned" in row
                    else ""
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
