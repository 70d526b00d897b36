"""The float32 copy of a model that directions are computed with, where the pass itself runs in less."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from ifguide.models.placement import waiting_on_host
from ifguide.models.tracked import ScoredModel, track_only


@contextlib.contextmanager
def in_full_precision(model: ScoredModel, load: Callable[[], ScoredModel]) -> Iterator[ScoredModel]:
    """``model`` itself if it is float32 or wider; else what ``load`` gives, with the same tracked layers.

    Then ``model`` waits in the host's memory, so that the device holds one of the two at a time.
    """
    if model.dtype in (torch.float32, torch.float64):
        yield model
        return
    device = model.device
    with waiting_on_host(model.model):
        try:
            yield track_only(load(), list(model.tracked))
        finally:
            _forget_freed(device)


def _forget_freed(device: torch.device) -> None:
    """Let the device have what its allocator keeps of tensors that are gone."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
