"""The estimates against literal sums, and the intervals against known labels."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from ifguide.errors import InputError
from ifguide.inspection.audit.estimate import audit, point, resampled, strata_of
from ifguide.inspection.audit.verdict import lines
from tests.inspection.audit.corpora import drawn, make_corpus

SEEDS = 60


def literal(record: dict[str, Any], labels: dict[str, str], named: dict[str, bool]) -> dict[str, Any]:
    """The equations of the module, sum by sum, in exact numbers."""
    count = len(record["masks"])
    abuse, hit, inside = Fraction(0), [Fraction(0)] * count, [Fraction(0)] * count
    reached, spared = [Fraction(0)] * count, {True: [Fraction(0)] * count, False: [Fraction(0)] * count}
    harmless = {True: Fraction(0), False: Fraction(0)}
    for h, stratum in enumerate(record["strata"]):
        rows = [span for span in record["spans"] if span["stratum"] == h and labels.get(span["id"]) in ("abuse", "not")]
        weight = {row["id"]: Fraction(row["tokens"] if stratum["complete"] else row["draws"]) for row in rows}
        total = sum(weight.values())
        bad = [row for row in rows if labels[row["id"]] == "abuse"]
        abusive = stratum["tokens"] * sum(weight[row["id"]] for row in bad) / total
        abuse += abusive
        for m in range(count):
            part = {row["id"]: Fraction(row["selected"][m], row["tokens"]) for row in rows}
            found = sum(weight[row["id"]] * part[row["id"]] for row in bad)
            taken = sum(weight[row["id"]] * part[row["id"]] for row in rows)
            inside[m] += stratum["tokens"] * found / total
            hit[m] += stratum["selected"][m] * found / taken if taken else 0
            reached[m] += abusive if m in stratum["masks"] else 0
            for row in rows:
                if labels[row["id"]] == "not":
                    spared[named[row["id"]]][m] += stratum["tokens"] * weight[row["id"]] * part[row["id"]] / total
        for row in rows:
            if labels[row["id"]] == "not":
                harmless[named[row["id"]]] += stratum["tokens"] * weight[row["id"]] / total
    known = [sum(stratum["selected"][m] for stratum in record["strata"]) for m in range(count)]
    precision = [hit[m] / known[m] for m in range(count)]
    recall = [inside[m] / abuse for m in range(count)]
    return {
        "share": abuse / sum(stratum["tokens"] for stratum in record["strata"]),
        "precision": precision,
        "recall": recall,
        "reached": [reached[m] / abuse for m in range(count)],
        "f1": [2 * precision[m] * recall[m] / (precision[m] + recall[m]) for m in range(count)],
        "with": [spared[True][m] / harmless[True] for m in range(count)],
        "without": [spared[False][m] / harmless[False] for m in range(count)],
    }


@pytest.mark.parametrize("whole", [True, False])
def test_estimates_are_the_literal_sums(whole: bool) -> None:
    corpus = make_corpus(4, spans=250, whole=whole)
    record, labels = drawn(corpus, 60, seed=4)
    assert any(stratum["complete"] for stratum in record["strata"]) and not all(
        stratum["complete"] for stratum in record["strata"]
    )
    assert any(span["draws"] > 1 for span in record["spans"])
    for place, name in enumerate(list(labels)):
        if place % 11 == 0:
            labels[name] = "unsure"
        elif place % 13 == 0:
            del labels[name]
    named = {span["id"]: place % 3 == 0 for place, span in enumerate(record["spans"])}
    result, expected = audit(record, labels, named), literal(record, labels, named)
    assert result["share"]["value"] == pytest.approx(float(expected["share"]), rel=1e-12)
    for m in range(2):
        for key in ("precision", "recall", "reached", "f1"):
            assert result["masks"][m][key]["value"] == pytest.approx(float(expected[key][m]), rel=1e-12), key
        for key in ("with", "without"):
            assert result["identity"][m][key]["value"] == pytest.approx(float(expected[key][m]), rel=1e-12), key


def hand_made(labels: list[str], complete: bool = False, total: int = 1000) -> tuple[dict[str, Any], dict[str, str]]:
    """One stratum of spans of ten tokens that the only mask takes whole."""
    spans = [{"id": str(n), "stratum": 0, "draws": 1, "tokens": 10, "selected": [10]} for n in range(len(labels))]
    strata = [{"masks": [0], "spans": len(labels) if complete else total, "tokens": 10 * total,
               "selected": [10 * total], "draws": len(labels), "complete": complete}]  # fmt: skip
    return {"audit": "x", "masks": ["m"], "strata": strata, "spans": spans}, dict(zip(map(str, range(99)), labels))


@pytest.mark.parametrize(("hits", "draws"), [(0, 20), (3, 20), (20, 20)])
def test_of_one_stratum_the_interval_is_that_of_clopper_and_pearson(hits: int, draws: int) -> None:
    record, labels = hand_made(["abuse"] * hits + ["not"] * (draws - hits))
    found = audit(record, labels)["share"]
    low = beta.ppf(0.025, hits, draws - hits + 1) if hits else 0
    high = beta.ppf(0.975, hits + 1, draws - hits) if hits < draws else 1
    assert found["value"] == hits / draws
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.015)  # of 5,000 resamples


def test_what_is_known_whole_varies_in_nothing() -> None:
    record, labels = hand_made(["abuse", "not", "not", "abuse"], complete=True, total=4)
    found = audit(record, labels)
    assert found["share"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    labels["0"] = "unsure"
    found = audit(record, labels)["share"]
    assert found["value"] == pytest.approx(1 / 3) and found["low"] < 0.2 < 0.6 < found["high"]


@cache
def many(whole: bool) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(audit, truth) of as many corpora as tell a coverage of 95% from one of less."""
    found = []
    for seed in range(SEEDS):
        corpus = make_corpus(seed, whole=whole)
        found.append((audit(*drawn(corpus, 300, seed + 1000), seed=seed), corpus.true()))
    return found


@pytest.mark.parametrize("whole", [True, False])
def test_intervals_cover_the_truth_in_18_of_20_seeds(whole: bool) -> None:
    def misses(pairs: list[tuple[dict[str, float], float]]) -> int:
        return sum(not found["low"] <= true <= found["high"] for found, true in pairs)

    most = SEEDS * 2 // 20
    assert misses([(found["share"], true["share"]) for found, true in many(whole)]) <= most
    for key in ("precision", "recall", "reached", "f1"):
        for m in range(2):
            assert misses([(found["masks"][m][key], true[key][m]) for found, true in many(whole)]) <= most, (key, m)
    for key in ("precision", "recall", "f1"):
        pairs = [(found["comparisons"][0][key], true[key][0] - true[key][1]) for found, true in many(whole)]
        assert misses(pairs) <= most, key


def test_intervals_are_no_wider_than_they_need_to_be() -> None:
    """Covering by width alone would be worthless: 300 labels tell F1 to about a tenth."""
    widths = [found["masks"][0]["f1"]["high"] - found["masks"][0]["f1"]["low"] for found, _ in many(True)]
    assert 0.1 < float(np.mean(widths)) < 0.25


def test_the_better_mask_is_recommended_and_a_twin_is_not() -> None:
    advised = [found["recommended"] for found, _ in many(True)]
    assert set(advised) <= {"mask0", None} and advised.count("mask0") >= SEEDS * 18 // 20
    corpus = make_corpus(5)
    second = corpus.selected[:, np.random.default_rng(0).permutation(len(corpus.sizes))]
    twin = type(corpus)(corpus.sizes, corpus.abuse, np.vstack([second[0], second[1]]))
    result = audit(*drawn(twin, 200, 1))
    assert result["recommended"] is None
    assert any(line.startswith("cannot tell apart") for line in lines(result))


def test_masks_of_parts_are_named() -> None:
    assert many(True)[0][0]["partial"] == []
    found = many(False)[0][0]
    assert found["partial"] == ["mask0", "mask1"]
    assert any("mask0, mask1: takes parts of spans" in line for line in lines(found))


def test_unsure_spans_are_left_out_and_both_ways_shown() -> None:
    record, labels = hand_made(["abuse", "not", "not", "unsure", "unsure"])
    result = audit(record, labels)
    assert result["share"]["value"] == pytest.approx(1 / 3)
    assert result["if_unsure_are"]["abuse"]["share"] == pytest.approx(3 / 5)
    assert result["if_unsure_are"]["not"]["share"] == pytest.approx(1 / 5)
    text = "\n".join(lines(result))
    assert "the 2 unsure spans are left out" in text and "were they all abuse: share 60.0%" in text


def test_without_abuse_nothing_is_said_of_recall() -> None:
    record, labels = hand_made(["not"] * 5)
    result = audit(record, labels)
    assert result["masks"][0]["recall"] is None and result["masks"][0]["precision"]["value"] == 0
    assert "recall unknown" in "\n".join(lines(result))
    json.dumps(result, allow_nan=False)


def test_a_stratum_without_a_decided_span_is_named() -> None:
    record, labels = drawn(make_corpus(6), 60, 6)
    gone = {span["id"] for span in record["spans"] if record["strata"][span["stratum"]]["masks"] == [1]}
    with pytest.raises(InputError, match="no span of the stratum 'mask1 alone' is labelled"):
        audit(record, {name: "unsure" if name in gone else label for name, label in labels.items()})


def test_resamples_are_the_same_for_one_seed() -> None:
    strata = strata_of(*drawn(make_corpus(7), 60, 7))
    one, same, other = (resampled(strata, seed, 50) for seed in (1, 1, 2))
    assert one.share.tolist() == same.share.tolist() != other.share.tolist()
    assert point(strata).share.shape == (1,) and one.share.shape == (100,)
