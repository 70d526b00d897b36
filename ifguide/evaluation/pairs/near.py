"""Whether a text is nearly one that was seen before: by the share of their runs of words.

Two texts are near-duplicates if the Jaccard index of their sets of runs of three normalised words (`words_of`) reaches
a threshold. A text of fewer words is one run.
"""

from __future__ import annotations

from ifguide.evaluation.overlap import words_of

RUN = 3

Runs = frozenset[tuple[str, ...]]


def runs_of(*texts: str) -> Runs:
    """The runs of words of several texts; none goes from one text into the next."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        words = words_of(text)
        if words:
            found.update(words[start : start + RUN] for start in range(max(1, len(words) - RUN + 1)))
    return frozenset(found)


def likeness(first: Runs, second: Runs) -> float:
    """Jaccard index, 0 to 1; two empty sets are equal."""
    together = len(first | second)
    return len(first & second) / together if together else 1.0


class Seen:
    """Texts that were kept so far.

    Args:
        threshold: from which likeness on a text is a near-duplicate, above 0.
    """

    def __init__(self, threshold: float):
        self._threshold = threshold
        self._kept: list[Runs] = []
        self._with_run: dict[tuple[str, ...], list[int]] = {}

    def has_like(self, runs: Runs) -> bool:
        """Whether a kept text is near."""
        shared: dict[int, int] = {}
        for run in runs:
            for at in self._with_run.get(run, ()):
                shared[at] = shared.get(at, 0) + 1
        return any(count / (len(runs) + len(self._kept[at]) - count) >= self._threshold for at, count in shared.items())

    def keep(self, runs: Runs) -> None:
        """Remember a text."""
        for run in runs:
            self._with_run.setdefault(run, []).append(len(self._kept))
        self._kept.append(runs)
