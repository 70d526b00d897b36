"""A scorer that shows how far it is: lm-eval shows nothing while a filter works."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from ifguide.errors import IFGuideWarning, tell
from ifguide.scorers.base import Scorer
from ifguide.scorers.wrapper import WrappedScorer
from ifguide.system.progress import Progress

# enough to sort by length and fill batches; a scorer tokenizes all that it is given at once
_TEXTS_AT_ONCE = 16384


class ReportingScorer(WrappedScorer):
    """``inner``, a part of the texts at a time.

    Args:
        inner: the scorer.
        quiet: show nothing, as on all ranks but the first.
    """

    def __init__(self, inner: Scorer, quiet: bool):
        super().__init__(inner)
        self._quiet = quiet
        if inner.warning and not quiet:
            tell("ifguide", f"warning: {inner.warning}")

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        parts = []
        with Progress(len(texts), "texts", f"score with {self.name}", quiet=self._quiet) as bar:
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                some = texts[start : start + _TEXTS_AT_ONCE]
                parts.append(self._inner.score(some, offset=start))
                bar.update(len(some))
        self.truncated = self._inner.truncated
        if self.truncated and not self._quiet:
            warnings.warn(
                f"{self.truncated} texts so far were cut to the {self.max_tokens} tokens that {self.name} reads",
                IFGuideWarning,
                stacklevel=2,
            )
        return {label: np.concatenate([part[label] for part in parts]) for label in self.labels}
