"""The sentences follow the numbers, in whichever direction they point."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ifguide.pages.summary import judge_sentence, lead, points


def _text(results: dict) -> str:
    return " ".join([lead(results), *points(results, num_prompts=100, num_samples=25).values()])


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (0.1, [0.05, 0.15], "Guided is lower than base; their 95% intervals do not overlap."),
        (0.6, [0.5, 0.63], "Guided is lower than base; their 95% intervals overlap."),
        (0.95, [0.9, 0.99], "Guided is higher than base; their 95% intervals do not overlap."),
        (0.612, [0.6, 0.7], "Guided equals base."),
    ],
)
def test_compares_guided_with_base(make_results: Callable, value: float, interval: list, expected: str) -> None:
    results = make_results(True)
    results["base"] |= {"tp_toxic": 0.612, "tp_toxic_interval": [0.55, 0.7]}
    results["guided"] |= {"tp_toxic": value, "tp_toxic_interval": interval}
    assert expected in _text(results)


def test_perplexity_change_has_a_direction(make_results: Callable) -> None:
    results = make_results(True)
    results["base"]["perplexity"], results["guided"]["perplexity"] = 100.0, 103.0
    results["control"]["perplexity"] = 90.0
    assert "guided is 3.0% higher and control 10.0% lower" in _text(results)
    results["guided"]["perplexity"] = 100.0
    assert "guided is the same" in _text(results)


def test_counts_come_from_the_arguments_and_results(make_results: Callable) -> None:
    text = _text(make_results(True))
    assert "100 toxic prompts" in text and "among 25" in text
    assert "1,234 tokens (3.1%) of 6 documents" in text
    assert "65% of its tokens" in text and "77% of the planted spans" in text


def test_without_truth_it_says_so(make_results: Callable) -> None:
    assert "nothing was planted" in _text(make_results(False))


def test_there_are_three_points_and_intervals_where_they_are_known(make_results: Callable) -> None:
    results = make_results(True)
    results["base"]["perplexity_interval"] = [80.0, 100.0]
    found = points(results, 100, 25)
    assert list(found) == ["Toxicity", "Clean text", "The mask"]
    assert "base 90.5 [80.0, 100], guided 91.5 and control 92.5;" in found["Clean text"]
    assert "without text: base 0.0%, guided 1.1% and control 2.2%." in found["Clean text"]
    for name in ("base", "guided", "control"):
        results[name]["empty_share"] = 0.0
    assert "without text" not in points(results, 100, 25)["Clean text"], "of 0 texts nothing is said"


def test_judge_with_and_without_a_report(make_results: Callable) -> None:
    sentence = judge_sentence(make_results(True)["judge"])
    assert "1,567" in sentence and "0.9876" in sentence and "0.9543" in sentence and "0.0211" in sentence
    assert judge_sentence(make_results(False)["judge"]) == "Toxicity was judged by hf:<x>#toxic."


def test_a_fourth_model_is_compared_and_no_meaning_is_made_up(four: dict) -> None:
    text = _text(four)
    assert text.startswith("Three models were trained alike") and "Shown beside them: d<p>o." in text
    assert "base 61%, d<p>o 31%, guided 63% and control 65%" in text
    assert "Guided is higher than d<p>o; their 95% intervals do not overlap." in text
    assert "against base, d<p>o is 50.0% lower, guided 1.1% higher and control 2.2% higher" in text


def test_models_of_other_names_only(four: dict) -> None:
    results = {name: part for name, part in four.items() if name not in ("base", "guided", "control")}
    text = _text(results | {"dpo": four["d<p>o"]})
    assert text.startswith("The mask holds 1,234 tokens (3.1%) of 6 documents. Shown beside them: d<p>o and dpo.")
    assert "Guided" not in text and "against base" not in text
