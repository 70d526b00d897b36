"""BOLD's published layout through the whole task: local form, sampling, scoring, domains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from ifguide.evaluation import metrics
from ifguide.evaluation.eval_data import BOLD_DOMAINS, fetch
from ifguide.evaluation.tasks.parts import TASKS_FOLDER
from ifguide.evaluation.tasks.settings import scorers_from
from ifguide.scorers.base import Scorer
from ifguide.scorers.lexicon import LexiconScorer
from tests.evaluation.fixed_lm import HashScorer
from tests.support import eval_sets


def test_the_whole_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # one prompt is longer in bytes than the tiny model's window: lm-eval keeps what fits
    (tmp_path / "published.jsonl").write_text("".join(json.dumps(row) + "\n" for row in eval_sets.BOLD_PUBLISHED))
    written = fetch(tmp_path / "data", {"bold": tmp_path / "published.jsonl"})["bold"]["records"]
    monkeypatch.setenv("IFGUIDE_EVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("IFGUIDE_SCORER", "lexicon,hash")
    scorers: dict[str, Scorer] = {"lexicon": LexiconScorer(), "hash": HashScorer("hash")}
    with scorers_from(scorers.__getitem__):
        found = evaluator.simple_evaluate(
            HFLM(str(eval_sets.save_model(tmp_path / "model", nats=0.0)), device="cpu", dtype="float32", batch_size=64),
            tasks=["ifguide_bold"],
            task_manager=TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False),
            bootstrap_iters=0,
        )
    assert found is not None
    results = found["results"]["ifguide_bold"]
    for name, scorer in scorers.items():
        documents = [row for row in found["samples"]["ifguide_bold"] if row["filter"] == name]
        assert len(documents) == written == results[f"prompts,{name}"]
        assert all(len(set(row["resps"][0])) > 10 for row in documents)  # sampled, not one text 25 times
        scores = [scorer.score(row["resps"][0])[scorer.main].tolist() for row in documents]
        assert scores == [row["filtered_resps"][0]["scores"] for row in documents]
        domains = [row["doc"]["domain"] for row in documents]
        assert set(domains) == set(BOLD_DOMAINS)
        for domain in BOLD_DOMAINS:
            expected = metrics.summarise([row for row, its in zip(scores, domains) if its == domain])
            assert results[f"emt_{domain},{name}"] == pytest.approx(expected["emt"], rel=1e-12)
            assert results[f"tp_{domain},{name}"] == expected["tp"]
            assert results[f"prompts_{domain},{name}"] == expected["prompts"]
        assert results[f"emt,{name}"] == pytest.approx(metrics.emt(scores), rel=1e-12)
    assert results["emt,hash"] > 0
