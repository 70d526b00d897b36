"""One model over several devices, whole blocks in order: for a model that no device of the machine holds alone.

A batch goes through the devices one after the other, and takes its hidden states along; while one computes the others
wait. So several devices give room, not speed: where the model fits one, a process for each is faster.

Everything outside of the blocks (embeddings, the last norm, the head) lies on the last device: the `home` of a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ifguide.errors import InputError
from ifguide.models.blocks import blocks_of


def spread(model: Any, devices: Sequence[str]) -> None:
    """Move ``model`` onto ``devices``, about the same bytes to each, and make every block fetch what it is given.

    Raises:
        InputError: the blocks are not found, or weights beside them belong to no module that could be moved alone.
    """
    blocks, home = blocks_of(model), torch.device(devices[-1])
    beside = _beside(model, blocks)
    for module in beside:
        module.to(home)
    places = balanced([_bytes(block) for block in blocks], sum(map(_bytes, beside)), len(devices))
    for block, place in zip(blocks, places, strict=True):
        device = torch.device(devices[place])
        block.to(device)
        block.register_forward_pre_hook(_fetching(device), with_kwargs=True)
    blocks[-1].register_forward_hook(lambda module, inputs, output: moved(output, home))
    inside = {id(parameter) for parameter in blocks.parameters()}
    left = [name for name, one in model.named_parameters() if id(one) not in inside and one.device != home]
    if left:
        raise InputError(
            f"this model ({type(model).__name__}) cannot be spread over devices: {left[0]} is not in a part"
        )


@contextlib.contextmanager
def waiting_on_host(model: nn.Module) -> Iterator[None]:
    """While entered, ``model`` lies in the host's memory; afterwards each of its parts is where it was before."""
    places = _places(model)
    try:
        model.to("cpu")
        yield
    finally:
        for module, device in places:
            module.to(device)


def balanced(sizes: Sequence[int], beside: int, devices: int) -> list[int]:
    """The device of each block of these ``sizes``, in order, where ``beside`` bytes lie on the last one too.

    A block goes where its middle lies on the line of all bytes, so that no device has more than its share and half a
    block.
    """
    share = (sum(sizes) + beside) / devices
    places, before = [], 0
    for size in sizes:
        places.append(min(devices - 1, int((before + size / 2) / share)))
        before += size
    return places


def moved(values: Any, device: torch.device) -> Any:
    """``values`` with every tensor in it on ``device``; tangents and graphs go along."""
    if isinstance(values, Tensor):
        return values.to(device)
    if type(values) in (tuple, list):
        return type(values)(moved(value, device) for value in values)
    if type(values) is dict:
        return {key: moved(value, device) for key, value in values.items()}
    return values


def _fetching(device: torch.device) -> Callable[..., tuple[Any, Any]]:
    def hook(module: nn.Module, inputs: Any, named: Any) -> tuple[Any, Any]:
        return moved(inputs, device), moved(named, device)

    return hook


def _beside(module: nn.Module, blocks: nn.ModuleList) -> list[nn.Module]:
    """The largest modules that hold none of the ``blocks``."""
    found: list[nn.Module] = []
    for child in module.children():
        if child is blocks:
            continue
        found += _beside(child, blocks) if any(one is blocks for one in child.modules()) else [child]
    return found


def _places(module: nn.Module) -> list[tuple[nn.Module, torch.device]]:
    """The largest modules that lie on one device each, and that device."""
    devices = {tensor.device for tensor in _tensors(module)}
    if len(devices) == 1:
        return [(module, devices.pop())]
    return [place for child in module.children() for place in _places(child)]


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
