"""A stage of the product that runs on the CPU and on the pretended GPU, and what is found of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Stage:
    """
    Attributes:
        name: of the stage.
        make: device ("cpu" or "cuda") -> the work, whatever it needs loaded; its numbers, the same on both, on the CPU.
        batches: how many of them the work goes over.
        planned: bytes on the device that `ifguide plan` says of it, without the CUDA context; None: it says nothing.
    """

    name: str
    make: Callable[[str], Callable[[], Tensor]]
    batches: int = 1
    planned: Callable[[], int] | None = None


def measure(stage: Stage) -> dict[str, Any]:
    """Run ``stage`` on both devices: the largest difference as a share of the largest number; of the work without what
    was loaded before it, operations and waits; the peak of both."""
    import torch

    from tests.support.pretended.device import pretended

    _forget_device()
    expected = stage.make("cpu")().double()
    _forget_device()
    with pretended() as ledger:
        work = stage.make("cuda")
        loaded = ledger.now[0]
        ledger.start_anew()
        found = work().double()
    assert found.device.type == expected.device.type == "cpu" and found.shape == expected.shape
    finite = bool(torch.isfinite(found).all())
    return {
        "difference": float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)) if finite else None,
        "operations": ledger.operations,
        "waits": sum(ledger.waits.values()),
        "waits_per_batch": sum(ledger.waits.values()) / stage.batches,
        "places": dict(ledger.waits.most_common()),
        "loaded": loaded,
        "peak": ledger.peak[0],
        "peaks": ledger.peak,
        "planned": stage.planned() if stage.planned else None,
    }


def _forget_device() -> None:
    """kronfluence remembers the device of its first use."""
    from kronfluence.utils.state import State

    State._reset_state()


def measure_peak(stage: Stage) -> dict[str, Any]:
    """Run ``stage`` on the pretended device alone: the bytes at its peak, loading and all, beside those planned."""
    from tests.support.pretended.device import pretended

    _forget_device()
    with pretended() as ledger:
        work = stage.make("cuda")
        loaded = ledger.now[0]
        ledger.start_anew()
        work()
    assert stage.planned
    return {"loaded": loaded, "peak": ledger.peak[0], "planned": stage.planned()}
