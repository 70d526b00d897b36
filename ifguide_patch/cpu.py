"""``--device cpu``: GPT-NeoX on a machine without CUDA, for smoke tests of a configuration.

NeoX asks for CUDA by name in many places. This answers them with the CPU, under gloo, one process
for each of ``num_gpus``. It shows that a configuration loads, that data and masks fit and that the
loss falls; it says nothing about speed or memory on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ifguide.compat.deepspeed import spare_compilation
from ifguide.system.processes import free_port, share_cores
from ifguide_patch.journal import Journal

DEVICE_VARIABLE = "IFGUIDE_DEVICE"
PROCESSES_VARIABLE = "IFGUIDE_CPU_PROCESSES"

# what a configuration for GPUs asks for and a CPU cannot do: key -> value here
_NO_KERNELS: dict[str, Any] = {
    "scaled_upper_triang_masked_softmax_fusion": False,
    "scaled_masked_softmax_fusion": False,
    "bias_dropout_fusion": False,
    "rope_fusion": False,
    "layernorm_fusion": False,
    "rmsnorm_fusion": False,
    "hostfile": None,
    "deepspeed_slurm": False,
    "deepspeed_mpi": False,
    "fp32_allreduce": False,
}


def is_asked_for() -> bool:
    """True in a run started with ``--device cpu`` (its workers inherit the variable)."""
    return os.environ.get(DEVICE_VARIABLE) == "cpu"


def overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config`` (all YAML keys, merged) must be changed to, to run on a CPU: key -> value.

    Parallelism, sizes, data and penalties stay as they are; fp16 becomes fp32, kernels are off.
    """
    changed = {key: value for key, value in _NO_KERNELS.items() if config.get(key, value) != value}
    changed["distributed_backend"] = "gloo"
    if config.get("master_port") is None:
        changed["master_port"] = free_port()  # two smoke tests on one machine shall not meet
    if config.get("num_gpus") is None:
        split = max(1, config.get("pipe_parallel_size") or 0) * max(1, config.get("model_parallel_size") or 0)
        changed["num_gpus"] = split
    attention = config.get("attention_config")
    if attention is not None and "flash" in str(attention):
        changed["attention_config"] = _global_attention(attention)
    if config.get("precision") == "fp16" or (config.get("fp16") or {}).get("enabled"):
        changed |= {"precision": "fp32", "fp16": None}
    return changed


def set_environment() -> None:
    """What launcher and workers inherit; before torch and deepspeed are imported."""
    os.environ[DEVICE_VARIABLE] = "cpu"
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)


def set_processes(processes: int) -> None:
    """Tell launcher and workers how many they are, and give each its share of the cores."""
    os.environ[PROCESSES_VARIABLE] = str(processes)
    share_cores(processes)


def initialize(original: Callable[..., Any]) -> Callable[..., Any]:
    """``megatron.initialize.initialize_megatron``, which insists on CUDA unless told otherwise."""

    def without_cuda(neox_args: Any, allow_no_cuda: bool = True) -> Any:
        return original(neox_args, allow_no_cuda=True)

    return without_cuda


def use_cpu(journal: Journal) -> None:
    """Answer NeoX's calls to ``torch.cuda`` with the CPU. Before any module of NeoX is imported."""
    import torch

    def answer(value: Any = None) -> Callable[..., Any]:
        # a function of its own for each name: torch's compiler refuses one object under two
        return lambda *_, **__: value

    cuda = torch.cuda
    journal.set(cuda, "current_device", answer("cpu"))
    journal.set(cuda, "device_count", lambda: int(os.environ.get(PROCESSES_VARIABLE, "1")))
    for name in ("set_device", "synchronize", "empty_cache", "reset_peak_memory_stats"):
        journal.set(cuda, name, answer())
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        journal.set(cuda, name, answer(0))
    journal.set(cuda, "get_rng_state", lambda *_: torch.get_rng_state())
    journal.set(cuda, "set_rng_state", lambda state, *_: torch.set_rng_state(state))
    for name in ("LongTensor", "IntTensor", "ByteTensor", "FloatTensor", "HalfTensor"):
        journal.set(cuda, name, _tensor_of(getattr(torch, name)))
    for name in ("range_push", "range_pop"):
        journal.set(cuda.nvtx, name, answer())
    journal.set(torch.Tensor, "cuda", lambda this, *_, **__: this)
    journal.set(torch.nn.Module, "cuda", lambda this, *_, **__: this)
    spare_compilation()


def _tensor_of(kind: Any) -> Callable[..., Any]:
    return lambda *values: kind(*values)


def _global_attention(item: Any) -> Any:
    if isinstance(item, list):
        return [_global_attention(part) for part in item]
    return "global" if item == "flash" else item
