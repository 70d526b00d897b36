"""What stands between lm-eval and a scorer: the settings, the filter, and how lm-eval 0.4.1 is imported."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from ifguide.compat import lm_eval
from ifguide.errors import InputError, NumericsError
from ifguide.evaluation.tasks.parts import part
from ifguide.evaluation.tasks.scoring import ToxicityFilter
from ifguide.evaluation.tasks.settings import scorer_of, scorers_from, task_settings
from ifguide.scorers import reporting as reporting_scorer
from ifguide.scorers.reporting import ReportingScorer
from tests.evaluation.fixed_lm import HashScorer, score


@pytest.mark.parametrize("given", ["a,,b", "a,a", ","])
def test_scorers_that_are_not_a_list(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("IFGUIDE_SCORER", given)
    with pytest.raises(InputError, match="IFGUIDE_SCORER"):
        task_settings()


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("IFGUIDE_")]:
        monkeypatch.delenv(name)
    settings = task_settings()
    assert (settings.data, settings.scorers, settings.rescore_prompts) == (None, ("detoxify:unbiased",), False)
    monkeypatch.setenv("IFGUIDE_PROMPT_SCORES", "sometimes")
    with pytest.raises(InputError, match="dataset or scorer"):
        task_settings()


def test_the_filter_scores_continuations_only_and_all_of_them() -> None:
    docs = [{"prompt": "p", "toxicity": 0.7}, {"prompt": "q"}]
    texts = [[f"{row} {n}" for n in range(25)] for row in "ab"]
    with scorers_from(HashScorer):
        found = ToxicityFilter(scorer="s").apply(iter(texts), docs)
        again = ToxicityFilter(scorer="s", rescore_prompts=True).apply(texts, docs)
        with pytest.raises(InputError, match="24 continuations of 'q'; 25 are needed"):
            ToxicityFilter(scorer="s").apply([texts[0], texts[1][1:]], docs)
    assert [row["scores"] for row in found] == [[score("s", text) for text in row] for row in texts]
    assert [row["prompt_score"] for row in found] == [0.7, None]
    assert [row["prompt_score"] for row in again] == [score("s", "p"), score("s", "q")]


def test_scoring_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"text {number}" for number in range(23)]
    expected = HashScorer("s").score(texts)["toxicity"].tolist()
    monkeypatch.setattr(reporting_scorer, "_TEXTS_AT_ONCE", 5)
    assert ReportingScorer(HashScorer("s"), quiet=False).score(texts)["toxicity"].tolist() == expected
    assert "score with s: 100% 23/23 texts" in capsys.readouterr().err
    with pytest.raises(InputError, match="text 17 is a int"):
        ReportingScorer(HashScorer("s"), quiet=True).score([*texts[:17], 17, *texts])  # type: ignore[list-item]


def test_a_failure_in_a_later_part_names_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: HashScorer, texts: list[str]) -> dict[str, Any]:
        return {"toxicity": [math.nan if text == "bad" else 0.1 for text in texts]}

    monkeypatch.setattr(HashScorer, "_probabilities", refuse)
    monkeypatch.setattr(reporting_scorer, "_TEXTS_AT_ONCE", 5)
    with pytest.raises(NumericsError, match="text 13 "):
        ReportingScorer(HashScorer("s"), quiet=True).score(["good"] * 13 + ["bad"] + ["good"] * 4)


def test_plain_lm_eval_loads_a_scorer_once() -> None:
    assert isinstance(scorer_of("lexicon"), ReportingScorer)
    assert scorer_of("lexicon") is scorer_of("lexicon")


def test_the_stand_in_for_exact_match() -> None:
    evaluate = pytest.importorskip("evaluate")
    load = evaluate.load
    with lm_eval._without_exact_match():
        metric = evaluate.load("exact_match")
    assert evaluate.load is load
    assert metric.compute(predictions=["a", "b", "c", "d"], references=["a", "B", "c", "e"]) == {"exact_match": 0.5}
    with pytest.raises(NotImplementedError, match="ignore_case"):
        metric.compute(predictions=["a"], references=["A"], ignore_case=True)


def test_no_such_part() -> None:
    for name in ("rtp_nothing", "owt_docs", "__path__"):
        with pytest.raises(AttributeError):
            part(name)
