"""Toxicity scorers behind one small interface: texts in, one probability a text and label out.

A scorer is named by a spec, `KIND:PATH` or `KIND:PATH#LABEL`:
  hf:PATH[#LABEL]   any Hugging Face sequence classifier in a local folder
  linear:PATH       a classifier trained by `ifguide.evaluation.linear`
A scorer that fails stops the run: a text without a score must never look like a harmless one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from ifguide.errors import InputError, NumericsError


class Scorer(ABC):
    """Scores texts.

    Attributes:
        name: the spec it was loaded from.
        labels: keys of what `score` returns.
    """

    name: str
    labels: tuple[str, ...]

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """``{label: probabilities[len(texts)]}``, float64, in the order of ``texts``.

        Raises:
            InputError: something that is not a text; names its index.
            NumericsError: a score missing, not finite, or outside [0, 1]; names the text's index.
        """
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"scorer {self.name}: text {index} is a {type(text).__name__}, not a string")
        scores = self._probabilities(list(texts)) if texts else {label: np.empty(0) for label in self.labels}
        return _checked(self.name, self.labels, len(texts), scores)

    @abstractmethod
    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        """One array a label; ``texts`` is not empty."""


def load_scorer(spec: str, *, device: str = "cpu") -> Scorer:
    """Load the scorer that ``spec`` names.

    Raises:
        InputError: an unknown kind, an unusable path, or a label that the classifier does not have.
    """
    kind, _, where = spec.partition(":")
    if kind == "hf" and where:
        from ifguide.evaluation.hf_scorer import HuggingFaceScorer

        path, _, label = where.partition("#")
        return HuggingFaceScorer(path, label or None, device=device)
    if kind == "linear" and where:
        from ifguide.evaluation.linear import LinearScorer

        return LinearScorer(where)
    raise InputError(f"scorer '{spec}' is not known; give hf:FOLDER, hf:FOLDER#LABEL or linear:FOLDER")


def _checked(name: str, labels: tuple[str, ...], count: int, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The scores as float64, or the exception that says which text has none."""
    checked = {}
    for label in labels:
        if label not in scores:
            raise NumericsError(f"scorer {name} returned no scores for label '{label}'")
        values = np.asarray(scores[label], dtype=np.float64)
        if values.shape != (count,):
            raise NumericsError(
                f"scorer {name}, label '{label}': scores of shape {values.shape} for {count} texts; "
                f"the first text without a score of its own is {min(values.size, count)}"
            )
        wrong = np.flatnonzero(~((values >= 0.0) & (values <= 1.0)))  # a NaN is in no range
        if wrong.size:
            index = int(wrong[0])
            raise NumericsError(
                f"scorer {name}, label '{label}': text {index} scored {values[index]}, which is no probability "
                f"({wrong.size} such texts)"
            )
        checked[label] = values
    return checked
