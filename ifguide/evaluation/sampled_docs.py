"""``--limit N``: which documents of a task are evaluated. The first N would be of one kind where a set is sorted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def sampled_documents(tasks: Mapping[str, Any], limit: int | None, seed: int) -> dict[str, list[int]] | None:
    """Numbers of the documents to evaluate, by task, as lm-eval's ``samples`` takes them; None for all.

    The sample of a smaller limit, by the same seed, is a part of that of a larger one.

    Args:
        tasks: lm-eval's tasks by name, loaded.
        limit: documents of each task, None for all.
        seed: of the draw; every task has a draw of its own.
    """
    if limit is None:
        return None
    return {name: draw(name, len(task.eval_docs), limit, seed) for name, task in tasks.items()}


def draw(task: str, available: int, limit: int, seed: int) -> list[int]:
    """``limit`` of ``available`` numbers without replacement, ascending; all of them where there are not more."""
    name = int.from_bytes(hashlib.blake2b(task.encode(), digest_size=8).digest(), "big")
    order = np.random.default_rng([seed, name]).permutation(available)
    return sorted(order[:limit].tolist())
