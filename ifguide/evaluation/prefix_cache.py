"""One prompt's key-value cache for all of its samples.

Shapes: P prompts, K samples each, H heads, L cached tokens, R room for new ones, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


def share_prefix(cache: DynamicCache, copies: int, room: int) -> None:
    """Copy every prompt's cache to its ``copies`` samples, with room for ``room`` more tokens.

    Row ``p`` becomes rows ``p * copies`` to ``(p + 1) * copies - 1``. Layers that are not plain full attention
    (sliding windows, linear attention) are repeated by transformers itself and grow as they do there.
    """
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = RoomyLayer(layer, copies, room)
        else:
            plain: Any = layer
            plain.batch_repeat_interleave(copies)


class RoomyLayer(DynamicLayer):
    """A cache layer allocated once: `DynamicLayer` copies all it holds for every token it is given."""

    keys: Tensor
    values: Tensor

    def __init__(self, prefix: DynamicLayer, copies: int, room: int):
        super().__init__()
        assert prefix.keys is not None and prefix.values is not None  # a layer that was prefilled
        self.dtype, self.device, self.is_initialized = prefix.dtype, prefix.device, True
        self._all_keys, self._all_values = _roomy(prefix.keys, copies, room), _roomy(prefix.values, copies, room)
        self._show(prefix.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[P*K, H, new, D]`` in place; returns views of everything held so far."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self._all_keys[..., start:end, :] = key_states
        self._all_values[..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def keep_one(self, place: Tensor, length: int) -> None:
        """Of what follows the first ``length`` tokens, keep the token at ``place[P*K]`` of each row alone."""
        rows = torch.arange(len(place), device=place.device)
        for held in (self._all_keys, self._all_values):
            held[:, :, length] = held[rows, :, length + place]
        self._show(length + 1)

    def _show(self, length: int) -> None:
        self.keys, self.values = self._all_keys[..., :length, :], self._all_values[..., :length, :]


def _roomy(prefix: Tensor, copies: int, room: int) -> Tensor:
    """``[P, H, L, D]`` -> ``[P*K, H, L+R, D]``, the room uninitialised."""
    prompts, heads, length, width = prefix.shape
    roomy = prefix.new_empty(prompts, copies, heads, length + room, width)
    roomy[..., :length, :] = prefix[:, None]
    return roomy.flatten(0, 1)
