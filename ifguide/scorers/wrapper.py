"""What every scorer around another scorer has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ifguide.scorers.base import Scorer


class WrappedScorer(Scorer):
    """A scorer that answers for ``inner``: the same name, labels, limit, warning and fingerprint, other ways to work.

    Args:
        inner: the scorer.
    """

    def __init__(self, inner: Scorer):
        self._inner = inner
        self.name, self.labels, self.max_tokens = inner.name, inner.labels, inner.max_tokens
        self.warning = inner.warning

    def fingerprint(self) -> str | None:
        return self._inner.fingerprint()

    def describe(self) -> dict[str, Any]:
        return self._inner.describe()

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        return self._inner.cut(texts)
