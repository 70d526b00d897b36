"""A layer of transformers' key-value cache that is allocated once.

`transformers.Cache` is a list of layers, and takes any object behind its abstract base, `transformers.CacheLayerMixin`.
This one implements all of that protocol itself and knows no other layer: of a filled one it is given the two tensors.

Shapes: B rows, H heads, L tokens held, S the most that it can hold, D head width.
"""

from __future__ import annotations

import inspect
from functools import cache as remembered
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

# what `forward` calls its cache: from 5.24 on, and before
_NAMES = ("cache", "past_key_values")


def takes_a_cache(model: Any) -> bool:
    """Whether ``model``'s `forward` names a cache among its parameters."""
    return name_of_cache(type(model).forward) is not None


def told_of(model: Any, cache: Cache) -> dict[str, Cache]:
    """``cache`` as a keyword of ``model``'s `forward`."""
    # one that does not name it hands it on, and the older name is understood by all of 5.x up to here
    return {name_of_cache(type(model).forward) or _NAMES[-1]: cache}


@remembered
def name_of_cache(forward: Any) -> str | None:
    """What a `forward` calls its cache, None if it names none."""
    told = inspect.signature(forward).parameters
    return next((name for name in _NAMES if name in told), None)


def new_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this configuration, with the kind of layer that each of its layers needs."""
    return DynamicCache(config=config)


def plain_layers(cache: Cache) -> list[int]:
    """Which layers of ``cache`` hold every token that they were given, and nothing else: plain full attention.

    A class of its own is a behaviour of its own (windows, recurrent states, keys of an index), so subclasses are not
    among them.
    """
    return [index for index, layer in enumerate(cache.layers) if type(layer) is DynamicLayer]


class RoomyLayer(CacheLayerMixin):
    """Keys and values of one layer with room for more: transformers' own copies all it holds for every new token.

    Args:
        keys: ``[B, H, S, D]``, of which the first ``length`` places are filled; kept and written to.
        values: as ``keys``.
        length: L.

    Attributes:
        keys: ``[B, H, L, D]``, a view.
        values: as ``keys``.
    """

    keys: Tensor
    values: Tensor
    is_sliding = False
    is_compileable = False

    def __init__(self, keys: Tensor, values: Tensor, length: int):
        super().__init__()
        self._all_keys, self._all_values = keys, values
        self.device = keys.device
        self.is_initialized = True
        self._show(length)

    def lazy_initialization(self, *states: Tensor) -> None:
        """Nothing: it is allocated from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[B, H, new, D]`` in place; returns views of everything held so far."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self._all_keys[..., start:end, :] = key_states
        self._all_values[..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def keep_one(self, place: Tensor, length: int) -> None:
        """Of what follows the first ``length`` tokens, keep the token at ``place[B]`` of each row alone."""
        rows = torch.arange(len(place), device=place.device)
        for held in (self._all_keys, self._all_values):
            held[:, :, length] = held[rows, :, length + place]
        self._show(length + 1)

    def get_seq_length(self) -> int:
        """L."""
        return self.keys.shape[-2]

    def get_mask_sizes(self, query: int | Tensor) -> tuple[int, int]:
        """Keys that a query meets, and the place of the first of them.

        Args:
            query: the number of new tokens; early 5.x gave their places instead, one a token.
        """
        new = query if isinstance(query, int) else len(query)
        return self.get_seq_length() + new, 0

    def get_max_length(self) -> int:
        """-1, no limit, as a growing layer says: nothing outside may plan for the room."""
        return -1

    # the name before 5.16
    get_max_cache_shape = get_max_length

    def _show(self, length: int) -> None:
        self.keys, self.values = self._all_keys[..., :length, :], self._all_values[..., :length, :]
