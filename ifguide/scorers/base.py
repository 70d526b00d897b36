"""A toxicity scorer behind one small interface: texts in, one probability a text and label out.

A scorer that fails stops the run: a text without a score must never look like a harmless one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ifguide.errors import IFGuideError, InputError, NumericsError, first_line

_MAIN_LABELS = ("toxicity", "toxic")


class Scorer(ABC):
    """Scores texts.

    Attributes:
        name: the spec it was loaded from.
        labels: keys of what `score` returns.
        max_tokens: longest text read whole, in tokens with special ones; None if there is no limit.
        truncated: texts cut to `max_tokens` so far.
        warning: what has to be said wherever its numbers are shown; "" for a classifier.
    """

    name: str
    labels: tuple[str, ...]
    max_tokens: int | None = None
    truncated: int = 0
    warning: str = ""

    @cached_property
    def main(self) -> str:
        """The label that says how toxic a text is: the only one, or the one called toxicity (or toxic).

        Raises:
            InputError: several labels, none of them called so.
        """
        if len(self.labels) == 1:
            return self.labels[0]
        for wanted in _MAIN_LABELS:
            for label in self.labels:
                if label.lower() == wanted:
                    return label
        raise InputError(
            f"scorer {self.name} has the labels {', '.join(self.labels)}: name one of them, as in {self.name}#LABEL"
        )

    def score(self, texts: Sequence[str], *, offset: int = 0) -> dict[str, np.ndarray]:
        """``{label: probabilities[len(texts)]}``, float64, in the order of ``texts``.

        Args:
            texts: what to score.
            offset: number of the first of them, for messages: the texts may be a part of a longer list.

        Raises:
            InputError: something that is not a text; names its index.
            NumericsError: a scorer that raises, or a score missing, not finite, or outside [0, 1]; names the text.
        """
        for index, text in enumerate(texts, offset):
            if not isinstance(text, str):
                raise InputError(f"scorer {self.name}: text {index} is a {type(text).__name__}, not a string")
        texts = list(texts)
        try:
            scores = self._probabilities(texts) if texts else {label: np.empty(0) for label in self.labels}
        except IFGuideError:
            raise
        except Exception as error:
            index = offset + _first_failure(self._probabilities, texts)
            reason = first_line(error)
            raise NumericsError(
                f"scorer {self.name} failed at text {index}: {type(error).__name__}: {reason}"
            ) from error
        return _checked(self.name, self.labels, len(texts), scores, offset)

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        """``bool[len(texts)]``: which of them are longer than `max_tokens`, so that only their start is scored.

        It follows from the texts alone: of scores that come from a journal, too.
        """
        return np.zeros(len(texts), dtype=bool)

    def describe(self) -> dict[str, Any]:
        """What a result that it was used for has to state."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "max_tokens": self.max_tokens,
            "identity": self.fingerprint(),
            **({"warning": self.warning} if self.warning else {}),
        }

    def fingerprint(self) -> str | None:
        """Hash of everything that decides a score; None where the name alone does."""
        return None

    @abstractmethod
    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        """One array a label; ``texts`` is not empty."""


def _first_failure(probabilities: Callable[[list[str]], object], texts: list[str]) -> int:
    """Index of the text that a scorer fails at, by halving: the first ``low`` texts pass, the first ``high`` do not."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            probabilities(texts[low:middle])
        except Exception:
            high = middle
        else:
            low = middle
    return low


def _checked(
    name: str, labels: tuple[str, ...], count: int, scores: Mapping[str, np.ndarray], offset: int
) -> dict[str, np.ndarray]:
    """The scores as float64, or the exception that says which text has none."""
    checked = {}
    for label in labels:
        if label not in scores:
            raise NumericsError(f"scorer {name} returned no scores for label '{label}'")
        values = np.asarray(scores[label], dtype=np.float64)
        if values.shape != (count,):
            raise NumericsError(
                f"scorer {name}, label '{label}': scores of shape {values.shape} for {count} texts; "
                f"the first text without a score of its own is {offset + min(values.size, count)}"
            )
        wrong = np.flatnonzero(~((values >= 0.0) & (values <= 1.0)))  # a NaN is in no range
        if wrong.size:
            index = int(wrong[0])
            raise NumericsError(
                f"scorer {name}, label '{label}': text {offset + index} scored {values[index]}, which is no "
                f"probability ({wrong.size} such texts)"
            )
        checked[label] = values
    return checked
