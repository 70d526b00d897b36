"""A scorer that remembers: what was scored survives a kill, and is not scored again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ifguide.scorers.base import Scorer
from ifguide.scorers.wrapper import WrappedScorer
from ifguide.system.journal import Journal, key_of
from ifguide.system.progress import Progress

_TEXTS_AT_ONCE = 4096


class StoredScorer(WrappedScorer):
    """``inner`` behind a journal; another classifier has another journal, even under the same path.

    Args:
        inner: the scorer.
        folder: for the journal; must exist.
        progress: show progress.
    """

    def __init__(self, inner: Scorer, folder: Path, *, progress: bool = False):
        super().__init__(inner)
        self._progress = progress
        self.path = folder / f"scores-{key_of(inner.name, inner.labels, inner.fingerprint())[:16]}.jsonl"
        self._journal = Journal(self.path)

    def recall(self, texts: Sequence[str]) -> list[float] | None:
        """The main score of each text, or None if one of them was never scored."""
        keys = [key_of(text) for text in texts]
        if not all(key in self._journal for key in keys):
            return None
        column = self.labels.index(self.main)
        return [self._journal[key]["scores"][column] for key in keys]

    def close(self) -> None:
        self._journal.close()

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        keys = [key_of(text) for text in texts]
        missing = [
            start
            for start in range(0, len(texts), _TEXTS_AT_ONCE)
            if not all(key in self._journal for key in keys[start : start + _TEXTS_AT_ONCE])
        ]
        quiet = not self._progress or not missing
        with Progress(len(texts), "texts", f"score with {self.name}", quiet=quiet) as bar:
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                some = slice(start, start + _TEXTS_AT_ONCE)
                if start in missing:
                    scores = self._inner.score(texts[some], offset=start)
                    table = np.stack([scores[label] for label in self.labels], axis=1).tolist()
                    self._journal.write({"key": key, "scores": row} for key, row in zip(keys[some], table))
                (bar.update if start in missing else bar.skip)(len(texts[some]))
        columns = np.array([self._journal[key]["scores"] for key in keys], dtype=np.float64).T
        return dict(zip(self.labels, columns))
