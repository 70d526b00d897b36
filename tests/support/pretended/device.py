"""Tensors on the pretended device, and a ledger of what the device was asked for.

    with pretended() as ledger:
        model.to("cuda")
        ...
    ledger.waits      # where in our code the host would have waited -> how often
    ledger.peak       # most bytes on a device at once

`build.load` must have run before torch was imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.pretended.build import COUNT

MEMORY = 80 << 30
_OURS = ("ifguide", "ifguide_patch", "benchmarks")

aten = torch.ops.aten
# arguments may lie on different devices: copies, and indices that are brought over first
_COPIES = {aten.copy_.default, aten._to_copy.default}
_INDEXED = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
}  # fmt: skip
# their result, or the size of it, is only known once the device has computed it
_WAITING = {
    aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default,
    aten.masked_select.default, aten.bincount.default, aten._unique2.default, aten.unique_dim.default,
    aten.unique_consecutive.default, aten.repeat_interleave.Tensor, aten.linalg_eigh.default,
    aten._linalg_eigh.default, aten.linalg_cholesky_ex.default,
}  # fmt: skip

_NOWHERE = "a backward pass"

_ledger: Ledger | None = None


class OnDevice(torch.Tensor):
    """Says ``cuda:N``; ``held`` is the tensor on the CPU that has its numbers."""

    held: torch.Tensor
    # as a class of torch's own: what a subclass may override goes past it
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor, index: int) -> OnDevice:
        found = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=torch.device("cuda", index), requires_grad=False,
        )  # fmt: skip
        found.held = held
        return found

    def __init__(self, held: torch.Tensor, index: int):
        pass

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnDevice({list(self.shape)}, {self.dtype}, {self.device})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Ledger(TorchDispatchMode):
    """
    Attributes:
        waits: "operation, file:line" -> how often the host would have waited there.
        operations: that the devices ran.
        now, peak: bytes on each device.
    """

    def __init__(self, gpus: int):
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.operations = 0
        self.now, self.peak = [0] * gpus, [0] * gpus
        self._owners: Counter[int] = Counter()

    def start_anew(self) -> None:
        """Forget waits and operations, and let the peaks start at what lies on the devices now."""
        self.waits.clear()
        self.operations = 0
        self.peak = [*self.now]

    def holds(self, tensor: torch.Tensor, index: int) -> None:
        """``tensor`` is on the device until it is gone. Tensors that share a storage count once."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._owners[key] += 1
        if self._owners[key] == 1:
            self.now[index] += size
            self.peak[index] = max(self.peak[index], self.now[index])
        weakref.finalize(tensor, self._release, key, size, index)

    def _release(self, key: int, size: int, index: int) -> None:
        self._owners[key] -= 1
        if not self._owners[key]:
            del self._owners[key]
            self.now[index] -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # in inference mode nothing takes composite operations apart before they come here
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        return _run(func, args, kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    others = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if not ours and (asked is None or asked.type != "cuda"):
        return func(*args, **kwargs)
    if any(tensor.device.type == "meta" for tensor in others):  # a formula that asks for shapes alone
        as_meta = lambda leaf: leaf.held.to("meta") if isinstance(leaf, OnDevice) else leaf  # noqa: E731
        return func(*pytree.tree_map(as_meta, args), **pytree.tree_map(as_meta, kwargs))
    _refuse_mixing(func, args, ours, others)
    target = _target(func, args, ours, asked)
    if _ledger is not None:
        _ledger.operations += 1
        if _waits(func, args, kwargs, target):
            _ledger.waits[f"{func}, {_place()}"] += 1
    result = _compute(func, args, kwargs)
    for tensor in ours:
        if tensor.held.shape != tensor.shape:
            raise NotImplementedError(f"{func} changes a shape in place, which cannot be pretended")
    known = {id(tensor.held): tensor for tensor in ours}

    def wrap(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or isinstance(leaf, OnDevice):
            return leaf
        if id(leaf) in known:
            return known[id(leaf)]
        if target.type != "cuda":
            return leaf
        index = target.index or 0
        if _ledger is not None:
            _ledger.holds(leaf, index)
        with _made_as(leaf):
            return OnDevice(leaf, index)

    return pytree.tree_map(wrap, result)


def _made_as(held: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """In inference mode a view of an ordinary tensor is an ordinary one: its wrapper has to be of the same kind."""
    if torch.is_inference_mode_enabled() and not held.is_inference():
        return torch.inference_mode(False)
    return contextlib.nullcontext()


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU."""
    as_held = lambda leaf: leaf.held if isinstance(leaf, OnDevice) else leaf  # noqa: E731
    args, kwargs = pytree.tree_map(as_held, (args, kwargs))
    kwargs.pop("pin_memory", None)
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    if func is aten._efficientzerotensor.default:  # one without memory would be a kind of its own
        return torch.zeros(args[0], dtype=kwargs.get("dtype"))
    return func(*args, **kwargs)


def _refuse_mixing(func: Any, args: Any, ours: list[OnDevice], others: list[torch.Tensor]) -> None:
    """
    Raises:
        RuntimeError: as a GPU would: arguments lie on several devices. A number of the CPU (no dimension) may.
    """
    devices = {str(tensor.device) for tensor in ours}
    if func in _COPIES:
        return
    if func in _INDEXED:
        if not isinstance(args[0], OnDevice) and ours:
            raise RuntimeError(f"indices should be on the same device as the indexed tensor (cpu): {_place()}")
    else:
        devices |= {str(tensor.device) for tensor in others if tensor.dim()}
    if len(devices) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {', '.join(sorted(devices))}: {func}, {_place()}"
        )


def _target(func: Any, args: Any, ours: list[OnDevice], asked: torch.device | None) -> torch.device:
    """Where the result lies."""
    if asked is not None:
        return asked
    if func in _COPIES or func in _INDEXED:
        return args[0].device
    return ours[0].device


def _waits(func: Any, args: Any, kwargs: dict[str, Any], target: torch.device) -> bool:
    """Whether the host stands still until the device has caught up."""
    if func is aten._to_copy.default:
        return args[0].device != target and "cpu" in (args[0].device.type, target.type) and not _at_leisure(kwargs)
    if func is aten.copy_.default:
        leisurely = kwargs.get("non_blocking", len(args) > 2 and args[2])
        return args[0].device.type != args[1].device.type and not leisurely
    if func in _INDEXED:
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        if any(index is not None and not isinstance(index, OnDevice) for index in args[1]):
            return True
        # one value under a mask is a fill, for which nobody has to know how many places there are
        return bool(masks) and (func is aten.index.Tensor or args[2].numel() != 1)
    return func in _WAITING


def _at_leisure(kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking"))


def _place() -> str:
    """The innermost line of the product, else the innermost one outside of torch; autograd's threads have none."""
    other = _NOWHERE
    frame: Any = sys._getframe(1)
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        line = f"{'/'.join(parts[-3:])}:{frame.f_lineno}"
        if "site-packages" not in parts and any(room in parts for room in _OURS):
            start = next(place for place, part in enumerate(parts) if part in _OURS)
            return f"{'/'.join(parts[start:])}:{frame.f_lineno}"
        if other is _NOWHERE and "torch" not in parts and "pretended" not in parts:
            other = line
        frame = frame.f_back
    return other


@contextlib.contextmanager
def pretended() -> Iterator[Ledger]:
    """There are GPUs, as many as `build.load` was told; they are as large as `MEMORY`."""
    global _ledger
    gpus = int(os.environ[COUNT])
    ledger = Ledger(gpus)

    def index(device: Any = None) -> int:
        return 0 if device is None else device if isinstance(device, int) else torch.device(device).index or 0

    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: gpus,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "is_bf16_supported": lambda *_, **__: True,
        "mem_get_info": lambda device=None: (MEMORY - ledger.now[index(device)], MEMORY),
        "memory_allocated": lambda device=None: ledger.now[index(device)],
        "memory_reserved": lambda device=None: ledger.now[index(device)],
        "max_memory_allocated": lambda device=None: ledger.peak[index(device)],
        "get_device_name": lambda device=None: "a pretended GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: SimpleNamespace(total_memory=MEMORY, name="a pretended GPU"),
    }
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        # numbers become a tensor of the CPU, which then moves as any other; a parameter that moves is a new one
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        _ledger = ledger
        try:
            with ledger:
                yield ledger
        finally:
            _ledger = None
