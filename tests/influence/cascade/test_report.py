"""What the report says of the mask, against the mask itself."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ifguide.influence.cascade.choice import AUDITED, CHOSEN, REJECTED, calibrate, choose, combine
from ifguide.influence.cascade.report import describe, report
from ifguide.influence.options import CascadeSettings
from ifguide.selection import SelectionSettings, paint_windows, select
from tests.influence.cascade.test_choice import make_source

_SELECTION = SelectionSettings(threshold_quantile=0.97, max_fraction=0.04)


def _mask(source):
    chosen = select(source, _SELECTION)
    codes = [paint_windows(source, span, chosen, np.ones(len(chosen.centres), np.uint8)) for span in source.spans()]
    return np.concatenate(codes) > 0


@pytest.fixture(scope="module")
def corpus():
    """(exact scores, lengths, exact mask): one document in eight is full of high scores."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 60, 800)
    toxic = np.repeat(rng.random(len(lengths)) < 0.125, lengths)
    exact = rng.standard_normal(lengths.sum()) + toxic * rng.exponential(4, lengths.sum()) * (
        rng.random(lengths.sum()) < 0.3
    )
    return exact.astype(np.float32), lengths, _mask(make_source(exact, lengths))


def _run(corpus, noise, settings):
    """(report, Jaccard of the final mask with the exact one, share of the exact mask in rejected units)"""
    exact, lengths, expected = corpus
    cheap = (exact + noise * np.random.default_rng(1).standard_normal(len(exact))).astype(np.float32)
    choice = choose(make_source(cheap, lengths), settings)
    calibration = calibrate(cheap, exact, choice)
    final = make_source(np.concatenate(list(combine(cheap, exact, choice, calibration))), lengths)
    found = _mask(final)
    rejected = np.repeat(choice.states == REJECTED, choice.lengths)
    record = report(final, choice, calibration, settings)
    return record, (expected & found).sum() / (expected | found).sum(), expected[rejected].sum() / expected.sum()


@pytest.mark.parametrize(("noise", "keep"), [(1.0, 0.12), (2.5, 0.12), (2.5, 0.08)])
def test_estimates_are_right_on_average_and_intervals_hold(corpus, noise, keep):
    found = [_run(corpus, noise, CascadeSettings(keep, 0.05, seed, _SELECTION)) for seed in range(25)]
    estimates = np.array([record["missed"]["share"] for record, _, _ in found])
    truths = np.array([share for _, _, share in found])
    assert abs(estimates.mean() - truths.mean()) < 0.03 + 2 * estimates.std() / math.sqrt(len(found))
    inside = [r["missed"]["interval"][0] <= share <= r["missed"]["interval"][1] for r, _, share in found]
    assert np.mean(inside) >= 0.85
    overlaps = np.array([overlap for _, overlap, _ in found])
    told = np.array([record["jaccard"]["estimate"] for record, _, _ in found])
    # calibrated scores in the mask count as wrong, though some are right: it may say less, not more
    assert -0.12 < told.mean() - overlaps.mean() < 0.03
    inside = [r["jaccard"]["interval"][0] <= overlap <= r["jaccard"]["interval"][1] for r, overlap, _ in found]
    assert np.mean(inside) >= 0.85


def test_a_perfect_proxy_loses_nothing(corpus):
    record, overlap, share = _run(corpus, 0.0, CascadeSettings(0.3, 0.05, 0, _SELECTION))
    assert share == 0 and record["missed"]["share"] == 0 and record["missed"]["audited_units"] == 0
    assert record["missed"]["interval"][0] == 0 < record["missed"]["interval"][1]
    assert overlap > 0.9 and record["jaccard"]["estimate"] > 0.9
    assert record["calibration"]["correlation"] == pytest.approx(1)


def test_a_useless_proxy_is_told(corpus):
    record, overlap, share = _run(corpus, 100.0, CascadeSettings(0.1, 0.1, 0, _SELECTION))
    assert share > 0.5 and record["missed"]["share"] > 0.4 and record["missed"]["interval"][0] > 0.2
    assert overlap < 0.3 and record["jaccard"]["estimate"] < 0.4
    assert record["unverified"] > 0 and "raise" not in describe(record)[0]
    assert any("rests on cheap scores" in line for line in describe(record))


def test_record(corpus):
    settings = CascadeSettings(0.12, 0.05, 0, _SELECTION)
    record, _, _ = _run(corpus, 2.5, settings)
    exact, lengths, _ = corpus
    assert json.loads(json.dumps(record)) == record
    assert record["units"]["total"] == len(lengths) and record["tokens"]["total"] == len(exact)
    assert record["tokens"]["chosen"] <= 0.12 * len(exact)
    assert abs(record["tokens"]["audited"] / len(exact) - 0.05) < 0.02
    assert record["settings"]["selection"]["threshold_quantile"] == 0.97
    text = "\n".join(describe(record))
    assert f"{record['units']['audited']} audited" in text and "Jaccard" in text


def test_the_whole_report_of_a_corpus_small_enough_to_count():
    """Ten documents of ten tokens: one chosen, all others audited, so that nothing is left to chance."""
    scores = np.zeros(100, np.float32)
    for document, score in ((2, 9.0), (5, 6.0), (7, 3.0)):
        scores[document * 10 + 4] = scores[document * 10 + 5] = score
    selection = SelectionSettings(threshold_quantile=0.94, window=1, max_fraction=0.08)
    settings = CascadeSettings(0.1, 0.9, 0, selection)
    lengths = [10] * 10
    choice = choose(make_source(scores, lengths), settings)
    assert choice.states.tolist() == [AUDITED] * 2 + [CHOSEN] + [AUDITED] * 7
    final = make_source(scores, lengths)
    record = report(final, choice, calibrate(scores, scores, choice), settings)
    # eight tokens: four of document 2 and four of 5, which is audited and stands for itself alone
    assert record["missed"]["audited_units"] == 1
    assert record["missed"]["share"] == 0 and record["unverified"] == 0
    assert record["threshold"]["audited_above"] == 4 and record["threshold"]["value"] < 3.0
