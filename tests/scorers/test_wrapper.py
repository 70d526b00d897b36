"""Whatever is around a scorer answers for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.scorers.base import Scorer
from ifguide.scorers.reporting import ReportingScorer
from ifguide.scorers.shared import SharedScorer, scoring_job
from ifguide.scorers.stored import StoredScorer
from ifguide.system.ranks import Ranks


class Inner(Scorer):
    """Nothing of it is a default."""

    name, labels, max_tokens, warning = "inner", ("toxicity", "insult"), 3, "never report it"

    def fingerprint(self) -> str | None:
        return "hash"

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "family": "one that only the scorer itself knows"}

    def cut(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
        return np.array([len(text.split()) > 3 for text in texts], dtype=bool)

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        lengths = np.array([len(text) for text in texts]) / 100
        return {"toxicity": lengths, "insult": lengths / 2}


def shared(inner: Scorer, folder: Path) -> Scorer:
    ranks = Ranks()
    ranks.jobs["score"] = scoring_job(lambda spec: inner)
    return SharedScorer("inner", inner, ranks)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner, folder: ReportingScorer(inner, quiet=True),
        lambda inner, folder: StoredScorer(inner, folder),
        shared,
    ],
    ids=["reporting", "stored", "shared"],
)
def test_a_wrapper_answers_for_its_scorer(wrap: Callable[[Scorer, Path], Scorer], tmp_path: Path) -> None:
    inner = Inner()
    outer = wrap(inner, tmp_path)
    assert outer.describe() == inner.describe() and "family" in outer.describe() and outer.main == inner.main
    texts = ["a b c", "a b c d", "", "a b c"]
    assert outer.cut(texts).tolist() == [False, True, False, False]
    found, expected = outer.score(texts), inner.score(texts)
    assert {label: list(values) for label, values in found.items()} == {
        label: list(values) for label, values in expected.items()
    }
