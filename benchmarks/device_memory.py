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
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
_MODES = ("again", "tracked", "frozen")
ATTENTION = "ifguide_counted"


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


def write_config(folder: Path, name: str) -> Path:
    """``config.json`` of a Pythia model, without weights."""
    from transformers import GPTNeoXConfig

    hidden, layers, heads = PYTHIA[name]
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
    from ifguide.influence.backward.gradients import blocks_run_again, gradients_to

    with contextlib.ExitStack() as stack:
        if mode == "frozen":
            for layer in model.tracked.values():
                handle = layer.register_forward_hook(_begin_here)
                stack.callback(handle.remove)
        else:
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


def count_inverse(model: Any) -> int:
    """Bytes at the peak of (M1)'s H~^-1 of the largest layer by EK-FAC factors."""
    from ifguide.influence.curvature.store import Factors
    from ifguide.influence.direction import precondition
    from ifguide.influence.options import Damping

    name = max(model.tracked, key=lambda name: sum(side**2 for side in model.matrix_shape(name)))
    outputs, inputs = model.matrix_shape(name)
    shapes = {"U_A": (inputs, inputs), "U_G": (outputs, outputs), "Lambda": (outputs, inputs)}
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=PYTHIA, default=list(PYTHIA))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    from ifguide.compat.transformers import register_attention

    register_attention(ATTENTION, attention)
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
