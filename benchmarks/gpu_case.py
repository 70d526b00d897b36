"""What the sections of `gpu.py` share: random models made where they run, time and memory, rows of results.

Shapes: B windows, T positions.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribution_case import SHAPES, Shape, save_case_model
from attribution_flops import matmul_rate, multiplied

if TYPE_CHECKING:
    import torch

    from ifguide.influence.batches import Batch
    from ifguide.influence.direction import Direction
    from ifguide.influence.options import Method
    from ifguide.models.tracked import ScoredModel

HIGHEST, TF32 = "highest", "high"
_REHEARSED_SIZES = (64, 128)
_SLOW_ENOUGH = 0.2


@dataclass
class Rows:
    """Results of a section, written down after each of them: what a time limit cuts off is only what was not done."""

    path: Path | None
    found: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, value: Any) -> None:
        self.found[name] = value
        if self.path is not None:
            from ifguide.system.files import write_text

            write_text(self.path, json.dumps(self.found))  # NaN of a GPU that computes nonsense is a finding too


@dataclass(frozen=True)
class Case:
    """Where and for how long a section runs.

    Attributes:
        device: "cpu" or "cuda".
        tiny: rehearse with a model that takes no time, whatever the shape.
        folder: for models and data; sections of one run share it.
        seconds: of this section, from now on.
        neox: a GPT-NeoX checkout, or None.
        repeats: of what is timed, where there is time.
    """

    device: str
    tiny: bool
    folder: Path
    seconds: float
    neox: str | None = None
    repeats: int = 5
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def shape(self, name: str) -> Shape:
        return SHAPES["tiny" if self.tiny else name]

    def model_folder(self, name: str) -> Path:
        """A saved model of this shape, with a tokenizer."""
        folder = self.folder / ("tiny" if self.tiny else name)
        if not (folder / "config.json").exists():
            save_case_model(folder, self.shape(name))
        return folder

    def synchronize(self) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()

    def matmul_rate(self, dtype: str, products: str = HIGHEST) -> float:
        """FLOP/s of the best square product, measured now."""
        with multiplied(products):
            return matmul_rate(self.device, dtype, self.synchronize, _REHEARSED_SIZES if self.tiny else None)

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Median after one turn that warms up; fewer turns where the section's time ends."""
        found: list[float] = []
        for turn in range(1 + self.repeats):
            started = time.perf_counter()
            work()
            self.synchronize()
            took = time.perf_counter() - started
            if turn or took > max(_SLOW_ENOUGH, self.left / 2):
                found.append(took)
            if found and self.left < 2 * took:
                break
        return statistics.median(found)

    def peak_of(self, work: Callable[[], object]) -> int | None:
        """Most bytes that torch held on the GPU meanwhile; None on a CPU."""
        import torch

        if self.device != "cuda":
            work()
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()


def random_model(case: Case, shape: Shape, dtype: str = "float32", device: str | None = None) -> ScoredModel:
    """As `load_model` gives it, but its weights are drawn where they are used: no disk and no host is waited for."""
    import torch
    from transformers import AutoModelForCausalLM

    from ifguide.models import attention
    from ifguide.models.tracked import describe_model, tracked_layers

    attention.register()
    config = configuration(shape)
    folder = shape_folder(case, shape)
    with torch.device(device or case.device):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    model = weights_in(model, dtype).eval().requires_grad_(False)
    return replace(describe_model(folder), model=model, tracked=tracked_layers(model))


def weights_in(model: Any, dtype: str) -> Any:
    """``model`` with its weights in ``dtype``, as if loaded so: what positions are computed with stays exact."""
    import torch

    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return model


def configuration(shape: Shape) -> Any:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, intermediate_size=4 * shape.hidden, max_position_embeddings=shape.window,
        bos_token_id=0, eos_token_id=0, architectures=["GPTNeoXForCausalLM"],
    )  # fmt: skip


def shape_folder(case: Case, shape: Shape) -> Path:
    """A model folder that has a configuration and nothing else."""
    folder = case.folder / f"shape-{shape.layers}-{shape.hidden}"
    if not (folder / "config.json").exists():
        configuration(shape).save_pretrained(folder)
    return folder


def drawn_direction(model: ScoredModel) -> Direction:
    """As `attribution_case.random_direction`, drawn on the model's device."""
    import torch

    return {
        name: torch.randn(model.matrix_shape(name), device=model.device).mul_(1e-3 / math.sqrt(layer.in_features))
        for name, layer in model.tracked.items()
    }


def write_corpus(prefix: Path, shape: Shape, windows: int) -> Path:
    """Documents of one window each, of random tokens."""
    import numpy as np

    from ifguide.data.indexed import write_index

    if not Path(f"{prefix}.idx").exists():
        np.random.default_rng(3).integers(1, shape.vocabulary, windows * shape.window, np.uint16).tofile(
            f"{prefix}.bin"
        )
        starts = np.arange(windows + 1) * shape.window
        write_index(f"{prefix}.idx", np.uint16, np.full(windows, shape.window), starts, np.arange(windows + 1))
    return prefix


def planned_bytes(case: Case, shape: Shape, job: str, phase: str, windows: int, method: Method, **more: Any) -> int:
    """What `ifguide plan` says of a phase of ``job`` on a GPU, without the CUDA context, which torch does not count."""
    from ifguide.influence.planning.plan import plan
    from ifguide.influence.planning.settings import Settings

    folder = shape_folder(case, shape)
    prefix = write_corpus(case.folder / f"plan-{shape.hidden}-{windows}", shape, windows)
    settings = Settings(
        device="cuda", device_memory=1e6, disk=case.folder, seq_length=shape.window, batch_size=windows, method=method,
        **more,
    )  # fmt: skip
    rows = plan(folder, prefix, settings, (job,))["memory"]
    (row,) = [row for row in rows if row["phase"].startswith(phase)]
    return row["device_bytes"] - row["device"].get("CUDA context", 0)


def compared(peak: int | None, planned: int) -> dict[str, Any]:
    """A peak beside what was planned."""
    ratio = None if peak is None else round(peak / planned, 3)
    return {"peak_bytes": peak, "planned_bytes": planned, "peak_to_plan": ratio}


def fitting_windows(make: Callable[[int], Callable[[], object]], windows: int) -> tuple[int, Callable[[], object]]:
    """The most windows, halved from ``windows`` down, with which the work that ``make`` makes fits the memory."""
    import torch

    while True:
        try:
            work = make(windows)
            work()
            return windows, work
        except torch.OutOfMemoryError:
            if windows == 1:
                raise
        torch.cuda.empty_cache()  # outside of the handler, which keeps the failed work alive
        windows //= 2


def batch_of(shape: Shape, windows: int, device: str | torch.device) -> Batch:
    from attribution_case import random_batch

    return random_batch(shape, windows, str(device))
