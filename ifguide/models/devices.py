"""Which device a model goes to: one rule for every verb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifguide.errors import InputError, first_line
from ifguide.system.run_process import this_process

if TYPE_CHECKING:
    import torch

AUTO = "auto"


def own_device(name: str | None = None) -> str:
    """Torch's name of the device that ``name`` means for this process.

    ``auto`` (or None) is the GPU where there is one, else ``cpu``. Where a launcher started several processes, ``cuda``
    is each process's own GPU; with fewer GPUs than processes they share them. Any other name stays as it is.
    """
    import torch

    if name is None or name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    local = this_process().local_rank
    if name == "cuda" and local is not None and torch.cuda.is_available():
        return f"cuda:{local % torch.cuda.device_count()}"
    return name


def all_gpus(flag: str) -> list[str]:
    """Every GPU of this machine that torch sees, for one process alone.

    Raises:
        InputError: fewer than two, or several processes, which would all take all of them.
    """
    import torch

    if this_process().local_rank is not None:
        raise InputError(f"{flag} takes all GPUs for one process; start one process without a launcher")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        raise InputError(f"{flag} needs two GPUs or more, torch sees {count}; leave it out")
    return [f"cuda:{index}" for index in range(count)]


def choose_device(name: str | None = None) -> str:
    """`own_device`, after a look whether torch can use it.

    Raises:
        InputError: torch has no such device here.
    """
    import torch

    device = own_device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise InputError(f"--device {name or AUTO} cannot be used: {reason}") from error
    return device


def free_memory(device: torch.device) -> int | None:
    """Bytes of a GPU that nobody holds, what torch keeps of freed tensors among them; None for another device."""
    import torch

    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])
