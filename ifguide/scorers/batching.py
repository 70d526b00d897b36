"""What every scorer with a model does before it asks it: equal texts once, texts of similar length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def distinct(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The texts without repetitions, in their order, and for each of ``texts`` its place among them, ``int64[N]``."""
    place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    return list(place), np.array([place[text] for text in texts], dtype=np.int64)


def by_length(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Batches of indices, longest first, so that memory peaks at the start.

    Args:
        lengths: of the texts, in tokens.
        most: tokens of a batch, padding included; a text alone may have more.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
