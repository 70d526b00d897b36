"""Agreement of judges, against the definition one text at a time."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ifguide.evaluation.agreement import SHOWN, agreement, kappa
from ifguide.pages.evaluation_table import agreed
from ifguide.statistics.resampling import RESAMPLES, bootstrap


def some_rows(prompts: int = 9, texts: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for number in range(prompts):
        first = [draw.random() for _ in range(texts)]
        second = [score if draw.random() < 0.6 else draw.random() for score in first]
        rows.append({"id": number, "scores": {"a": first, "b": second, "c": [0.5] * texts}})
    return rows


def literal(rows: list[dict[str, Any]], first: str, second: str) -> float:
    """κ of all texts, counted one by one."""
    verdicts = [
        (x >= 0.5, y >= 0.5) for row in rows for x, y in zip(row["scores"][first], row["scores"][second], strict=True)
    ]
    n = len(verdicts)
    observed = sum(x == y for x, y in verdicts) / n
    a, b = sum(x for x, _ in verdicts) / n, sum(y for _, y in verdicts) / n
    chance = a * b + (1 - a) * (1 - b)
    return (observed - chance) / (1 - chance)


def test_kappa_is_the_definition_and_sklearns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rows = some_rows()
    (pair,) = agreement(rows, ["a", "b"])
    assert pair["kappa"] == pytest.approx(literal(rows, "a", "b"), abs=1e-12) and 0.2 < pair["kappa"] < 0.9
    verdicts = [[score >= 0.5 for row in rows for score in row["scores"][judge]] for judge in "ab"]
    assert pair["kappa"] == pytest.approx(metrics.cohen_kappa_score(*verdicts), abs=1e-12)
    ours = [pair[key] for key in ("neither", "second_only", "first_only", "both")]
    assert ours == metrics.confusion_matrix(*verdicts).ravel().tolist()
    assert pair["texts"] == sum(ours) == 45 and pair["prompts"] == 9
    assert pair["same"] == pytest.approx((pair["both"] + pair["neither"]) / 45)


def test_the_interval_is_the_bootstrap_over_prompts() -> None:
    """The draws of the project's bootstrap, each resample's κ counted one text at a time."""
    rows = some_rows(prompts=7, texts=3, seed=2)
    (pair,) = agreement(rows, ["a", "b"], seed=5)
    drawn = np.random.default_rng(5).integers(0, 7, size=(RESAMPLES, 7))[:300]
    kappas = [literal([rows[place] for place in some], "a", "b") for some in drawn]
    # of all draws only the first are computed here: they must lie about the interval as 95 % do
    low, high = pair["interval"]
    assert 0.90 < np.mean([low <= value <= high for value in kappas]) < 0.99
    assert low < pair["kappa"] < high
    counts = np.array(
        [
            [
                [sum((x >= 0.5) == (y >= 0.5) for x, y in zip(row["scores"]["a"], row["scores"]["b"])), 3],
                [sum(x >= 0.5 for x in row["scores"]["a"]), 3],
                [sum(y >= 0.5 for y in row["scores"]["b"]), 3],
            ]
            for row in rows
        ],
        dtype=float,
    )
    draws = kappa(bootstrap(counts, "mean", seed=5))
    assert draws[:300] == pytest.approx(kappas, abs=1e-12, nan_ok=True)
    assert pair["interval"] == pytest.approx(np.nanquantile(draws, [0.025, 0.975]).tolist(), abs=1e-12)


def test_judges_that_agree_fully_or_not_at_all() -> None:
    rows = [{"id": n, "scores": {"a": [0.9, 0.1], "b": [0.5, 0.49], "c": [0.2, 0.8]}} for n in range(4)]
    same, _, opposed = agreement(rows, ["a", "b", "c"])
    assert (same["kappa"], same["same"], same["interval"], same["disagreements"]) == (1.0, 1.0, [1.0, 1.0], [])
    assert (opposed["first"], opposed["second"], opposed["kappa"], opposed["same"]) == ("b", "c", -1.0, 0.0)


def test_no_kappa_where_both_always_say_the_same() -> None:
    rows = [{"id": n, "scores": {"a": [0.1, 0.2], "b": [0.0, 0.49]}} for n in range(4)]
    (pair,) = agreement(rows, ["a", "b"])
    assert pair["kappa"] is None and pair["interval"] is None and pair["same"] == 1.0
    assert "no κ, because both call all texts the same" in agreed(pair)
    (constant,) = agreement(some_rows(), ["a", "c"])
    assert constant["kappa"] == pytest.approx(0.0, abs=1e-12), "one judge that is constant knows nothing"


def test_one_prompt_has_no_interval_and_one_judge_no_pair() -> None:
    (pair,) = agreement(some_rows(prompts=1), ["a", "b"])
    assert pair["interval"] is None and pair["kappa"] is not None
    assert agreement(some_rows(), ["a"]) == [] and agreement(some_rows(), []) == []


def test_disagreements_are_the_widest_and_point_to_the_texts() -> None:
    rows = some_rows(prompts=60)
    (pair,) = agreement(rows, ["a", "b"])
    every = [
        (abs(x - y), row["id"], place)
        for row in rows
        for place, (x, y) in enumerate(zip(row["scores"]["a"], row["scores"]["b"]))
        if (x >= 0.5) != (y >= 0.5)
    ]
    assert len(every) == pair["first_only"] + pair["second_only"] > SHOWN == len(pair["disagreements"])
    widest = sorted(every, key=lambda one: -one[0])[:SHOWN]
    assert [(one["id"], one["text"]) for one in pair["disagreements"]] == [(id_, place) for _, id_, place in widest]
    for one in pair["disagreements"]:
        assert one["scores"] == [rows[one["id"]]["scores"][judge][one["text"]] for judge in "ab"]
