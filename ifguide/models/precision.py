"""TF32: float32 matrices multiplied on NVIDIA's tensor cores with 10 bits of mantissa, several times as fast."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# the first generation of GPUs that has it
_CAPABILITY = (8, 0)


def tf32_fault(device: torch.device) -> str | None:
    """Why --tf32 cannot apply on ``device``; None if it can."""
    if device.type != "cuda":
        return f"--tf32 needs an NVIDIA GPU, this run is on {device.type}; leave it out"
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < _CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f"--tf32 needs an NVIDIA GPU of compute capability 8.0 or more, {name} is none; leave it out"
    return None


@contextlib.contextmanager
def tf32_matmuls() -> Iterator[None]:
    """Multiply float32 matrices on CUDA devices in TF32 while the block runs, and as before afterwards."""
    backend = torch.backends.cuda.matmul
    # torch before 2.9 has a switch in place of a name
    setting = "fp32_precision" if hasattr(backend, "fp32_precision") else "allow_tf32"
    before = getattr(backend, setting)
    setattr(backend, setting, "tf32" if setting == "fp32_precision" else True)
    try:
        yield
    finally:
        setattr(backend, setting, before)
