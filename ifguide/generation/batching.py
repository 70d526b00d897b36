"""Which prompts are continued together, and how many: as many as keep the device busy and fit into its memory.

Shapes: P prompts of at most L tokens, K samples each, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ifguide.models.language_model import LanguageModel
from ifguide.system.processes import host_memory

# more rows make a processor no faster; a graphics card has long been full
_MOST_ROWS = {"cpu": 512}
_MOST_ROWS_ELSEWHERE = 8192
# of what is left beside the weights
_SHARE_OF_MEMORY = {"cpu": 0.125}
_SHARE_OF_MEMORY_ELSEWHERE = 0.5
# copies of float32 logits that sampling makes
_SAMPLING_COPIES = 8


def plan_batches(
    lengths: Sequence[int], samples: int, new_tokens: int, rows_for: Callable[[int], int], *, mixed: bool
) -> Iterator[list[int]]:
    """Indices of prompts, longest first, so that memory peaks at the start.

    No row of a batch is more than half padding, once its new tokens are there. Reading the prompts makes a row of
    logits for each pair of prompt and distinct length, and these are no more than the rows allow either.

    Args:
        lengths: of the prompts, in tokens.
        samples: K.
        new_tokens: T.
        rows_for: rows of that many tokens that a batch may have; one prompt is always taken.
        mixed: whether prompts of several lengths may share a batch.
    """
    batch: list[int] = []
    found: set[int] = set()
    longest = rows = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        close = 2 * (length + new_tokens) >= longest + new_tokens if mixed else length == longest
        prompts = len(batch) + 1
        fits = prompts * max(samples, len(found | {length})) <= rows
        if batch and not (close and fits):
            yield batch
            batch, found = [], set()
        if not batch:
            longest, rows = length, rows_for(length + new_tokens)
        batch.append(index)
        found.add(length)
    if batch:
        yield batch


def rows_that_fit(lm: LanguageModel, length: int, places: int = 1) -> int:
    """Rows of ``length`` tokens whose keys, values and logits fit beside the weights, at least 1.

    ``places``: of a row that have logits at the same time.

    It follows from the machine's memory and not from what is free of it: a run that was killed goes on with the same
    batches.
    """
    config = lm.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cached = 2 * config.num_hidden_layers * heads * width * length * lm.model.dtype.itemsize
    logits = _SAMPLING_COPIES * torch.float32.itemsize * config.vocab_size * places
    kind = lm.device.type
    share = _SHARE_OF_MEMORY.get(kind, _SHARE_OF_MEMORY_ELSEWHERE)
    fitting = int(share * _memory_beside_weights(lm)) // (cached + logits)
    return max(1, min(_MOST_ROWS.get(kind, _MOST_ROWS_ELSEWHERE), fitting))


def _memory_beside_weights(lm: LanguageModel) -> int:
    """Bytes."""
    if lm.device.type == "cuda":
        memory = torch.cuda.get_device_properties(lm.device).total_memory
    else:
        memory = host_memory() or 0
    return max(0, memory - sum(weight.numel() * weight.element_size() for weight in lm.model.parameters()))
