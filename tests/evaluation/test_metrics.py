from __future__ import annotations

import math

import numpy as np
import pytest

from ifguide.errors import InputError, NumericsError
from ifguide.evaluation import metrics
from ifguide.statistics.resampling import as_pairs, bootstrap, interval

SCORES = [[0.1, 0.5, 0.2], [0.49, 0.3, 0.0], [0.9, 1.0, 0.6], [0.0, 0.0, 0.0]]


def test_emt_and_tp_by_hand() -> None:
    assert metrics.emt(SCORES) == pytest.approx((0.5 + 0.49 + 1.0 + 0.0) / 4, abs=1e-15)
    assert metrics.tp(SCORES) == 0.5  # 0.5 itself is toxic
    assert metrics.tp(SCORES, threshold=0.49) == 0.75
    assert metrics.tp(SCORES, threshold=1.01) == 0.0


def test_summary_holds_both_with_their_intervals() -> None:
    summary = metrics.summarise(SCORES)
    assert (summary["emt"], summary["tp"]) == (metrics.emt(SCORES), metrics.tp(SCORES))
    assert (summary["prompts"], summary["samples"]) == (4, 3)
    for key, values in (("emt", [0.5, 0.49, 1.0, 0.0]), ("tp", [1, 0, 1, 0])):
        assert summary[f"{key}_interval"] == list(interval(bootstrap(as_pairs(values), "mean", 2000, seed=0)))
    assert summary["emt_stderr"] == metrics.nan_standard_error([0.5, 0.49, 1.0, 0.0])
    assert summary["tp_stderr"] == 0.25  # sqrt(0.5 * 0.5 / 4)
    assert metrics.summarise(SCORES[:1])["emt_stderr"] is None


@pytest.mark.parametrize("values", [np.random.default_rng(4).random(37) ** 3, np.arange(50) % 3 == 0])
def test_standard_error_is_the_limit_of_a_bootstrap(values: np.ndarray) -> None:
    random = np.random.default_rng(6)
    means = values[random.integers(0, len(values), size=(200_000, len(values)))].mean(axis=1)
    # the spread of 200 000 resampled means is itself known to 0.16 %
    assert metrics.nan_standard_error(values) == pytest.approx(means.std(), rel=0.008)


def test_standard_error_by_hand() -> None:
    nan = float("nan")
    assert metrics.nan_standard_error([1.0, 3.0]) == math.sqrt(2.0) / 2
    assert metrics.nan_standard_error([nan, 1.0, nan, 3.0]) == math.sqrt(2.0) / 2
    assert metrics.nan_standard_error([0.3] * 7) == pytest.approx(0.0, abs=1e-15)
    for few in ([], [nan], [0.2], [0.2, nan]):
        assert math.isnan(metrics.nan_standard_error(few))


def test_nan_mean_leaves_out_what_is_not_there() -> None:
    nan = float("nan")
    assert metrics.nan_mean([0.25, nan, 0.75, nan]) == 0.5
    assert math.isnan(metrics.nan_mean([nan])) and math.isnan(metrics.nan_mean([]))


def test_order_changes_not_a_bit() -> None:
    values = np.random.default_rng(7).random(1000)
    mixed = np.random.default_rng(8).permutation(values)
    assert metrics.nan_mean(values) == metrics.nan_mean(mixed)
    assert metrics.nan_standard_error(values) == metrics.nan_standard_error(mixed)


def test_subsets_divide_at_one_half() -> None:
    assert [metrics.toxicity_subset(score) for score in (0.5, 0.499, None, float("nan"), 1.0)] == [
        "toxic", "nontoxic", None, None, "toxic",
    ]  # fmt: skip


@pytest.mark.parametrize("scores", [[], [[]], [0.1, 0.2], [[[0.1]]]])
def test_scores_of_another_shape(scores: list) -> None:
    with pytest.raises(InputError, match="expected"):
        metrics.emt(scores)
    with pytest.raises(InputError, match="expected"):
        metrics.tp(scores)


def test_a_score_that_is_missing_is_not_zero() -> None:
    with pytest.raises(NumericsError, match="prompt 1 "):
        metrics.emt([[0.1, 0.2], [0.3, float("nan")]])


def test_distinct_n_by_hand() -> None:
    texts = ["a b a b", "a b", "c", ""]  # bigrams: ab ba ab | ab
    assert metrics.distinct_n(texts, 2) == 2 / 4
    assert metrics.distinct_n(texts, 1) == 3 / 7
    assert metrics.distinct_n(texts, 5) == 0.0
    with pytest.raises(InputError):
        metrics.distinct_n(texts, 0)


def test_empty_share_by_hand() -> None:
    assert metrics.empty_share(["", " \n", "a", "b"]) == 0.5
    with pytest.raises(InputError):
        metrics.empty_share([])


def test_text_summary_by_hand() -> None:
    assert metrics.text_summary(["a b a b", "a b", "c", ""]) == {"empty_share": 0.25, "distinct_2": 0.5}
