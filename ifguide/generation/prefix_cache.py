"""Prompts of several lengths in one cache, each read once for all of its samples.

Shapes: P prompts of at most L tokens, K samples each, B = P * K rows, R room for new tokens, H heads, D head width.

While prompts are read they are filled up on the right. A causal model's token does not see what follows it, so this
needs no mask and changes no number. Then every row is moved to the right end:

    read    a b c -        cached    . a b c | new
            d e f g                  d e f g | new

so that the next token of every row has the same place in the cache. Its attention leaves out what is empty (.), and its
position counts the row's own tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ifguide.compat.transformers_cache import RoomyLayer, new_cache, plain_layers, takes_a_cache

# their frequencies follow the longest row of a batch
_ROPE_OF_THE_BATCH = ("dynamic", "longrope")


def takes_mixed_lengths(model: Any) -> bool:
    """Whether rows of several lengths can share a cache of ``model`` and each compute what it computes alone.

    It must be told positions and a mask, hold plain full attention (no sliding windows, no recurrent state), and take
    nothing else from its neighbours in the batch.
    """
    told = inspect.signature(model.forward).parameters
    cache = new_cache(model.config)
    return (
        {"position_ids", "attention_mask"} <= told.keys()
        and takes_a_cache(model)
        and bool(cache.layers)
        and len(plain_layers(cache)) == len(cache.layers)
        and not any(kind in _rope_types(model.config) for kind in _ROPE_OF_THE_BATCH)
    )


def fill_up(prompts: Sequence[Sequence[int]], device: torch.device | str) -> Tensor:
    """Tokens ``[P, L]``, short rows continued on the right."""
    longest = max(map(len, prompts))
    # with tokens of its own: an embedding that is NaN must not reach the prompts that do not have that token
    rows = [[*prompt, *[prompt[-1]] * (longest - len(prompt))] for prompt in prompts]
    return torch.tensor(rows, device=device)


class Prefixes:
    """The cache of a batch of prompts, copied to their samples, with room for new tokens.

    Row ``p`` becomes rows ``p * K`` to ``(p + 1) * K - 1``. Layers that are not plain full attention are repeated by
    transformers itself and grow as they do there; their prompts must be of one length.

    Args:
        cache: transformers', of the prompts as `fill_up` gives them; changed in place.
        lengths: of the prompts, ``[P]``.
        copies: K.
        room: R.

    Attributes:
        cache: the cache, B rows.
        length: L.
        positions: of each row's first new token, ``[B]``.
    """

    def __init__(self, cache: Any, lengths: Sequence[int], copies: int, room: int, device: torch.device):
        self.cache, self.length = cache, max(lengths)
        self.positions = torch.tensor(lengths, device=device).repeat_interleave(copies)
        self._mixed = min(lengths) < self.length
        # 1 where a row holds a token, [B, L + R]
        places = torch.arange(self.length + room, device=device)
        self._mask = (places >= self.length - self.positions[:, None]).long()
        plain = set(plain_layers(cache))
        for index, layer in enumerate(cache.layers):
            if index in plain:
                keys, values = (_roomy(held, lengths, copies, room) for held in (layer.keys, layer.values))
                cache.layers[index] = RoomyLayer(keys, values, self.length)
            else:
                layer.batch_repeat_interleave(copies)

    def options(self, new: int) -> dict[str, Tensor]:
        """What a model has to be told to read one more token a row, after ``new`` of them; nothing without padding."""
        if not self._mixed:
            return {}
        return {
            "attention_mask": self._mask[:, : self.length + new + 1],
            "position_ids": self.positions[:, None] + new,
        }

    def held(self, new: int) -> Tensor:
        """``[B, L + new]``: where a row holds a token; one row for all of them if they are of one length."""
        return self._mask[: None if self._mixed else 1, : self.length + new].bool()


def _roomy(prefix: Tensor, lengths: Sequence[int], copies: int, room: int) -> Tensor:
    """``[P, H, L, D]`` -> ``[B, H, L + R, D]``, rows at the right end of L, the room uninitialised."""
    prompts, heads, longest, width = prefix.shape
    roomy = prefix.new_empty(prompts, copies, heads, longest + room, width)
    for length in set(lengths):
        rows = torch.tensor([p for p in range(prompts) if lengths[p] == length], device=prefix.device)
        # attention gives what is masked the weight 0, and 0 times an uninitialised NaN is NaN
        roomy[rows, :, :, : longest - length] = 0.0
        roomy[rows, :, :, longest - length : longest] = prefix[rows, None, :, :length]
    return roomy.flatten(0, 1)


def _rope_types(config: Any) -> str:
    """The kinds of rotary embedding, one for all layers or one for each kind of layer."""
    given = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [given, *(value for value in given.values() if isinstance(value, Mapping))]
    return " ".join(str(kind.get("rope_type")) for kind in kinds)
