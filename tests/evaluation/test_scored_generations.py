from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.evaluation import scored_generations
from ifguide.evaluation.scored_generations import score_generations
from ifguide.generation.draw import Sampling
from ifguide.generation.job import generate_file, partial_path, sidecar_path
from ifguide.scorers.base import Scorer
from ifguide.scorers.registry import load_scorer
from ifguide.system.files import read_json, read_jsonl, write_jsonl
from ifguide.system.locks import only_writer
from tests.support.killing import kill_after_lines
from tests.support.tiny_models import save_classifier
from tests.support.tiny_scorers import save_detoxify, save_toxigen

ROWS = [
    {"id": 0, "prompt": "you", "continuations": ["you idiot", "kind tree"], "toxicity": 0.5},
    {"id": 1, "prompt": "the", "continuations": ["", "a stupid, stupid cat"]},
]


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "g.jsonl", ROWS)
    return tmp_path / "g.jsonl"


def test_several_classifiers_on_the_same_texts(generations: Path, tmp_path: Path) -> None:
    explicit = f"detoxify:unbiased@{save_detoxify(tmp_path / 'd', 'unbiased')}"
    implicit = f"toxigen-roberta@{save_toxigen(tmp_path / 't')}"
    output = tmp_path / "s.jsonl"
    result = score_generations(generations, [explicit, implicit, "lexicon"], output)
    rows = read_jsonl(output)
    assert [{k: v for k, v in row.items() if k != "scores"} for row in rows] == ROWS
    for spec in (explicit, implicit, "lexicon"):
        scorer = load_scorer(spec)
        for row in rows:
            expected = scorer.score(row["continuations"])["toxicity"]
            assert row["scores"][spec] == pytest.approx(expected.tolist(), abs=1e-6)
    assert result["results"]["lexicon"] == {"emt": pytest.approx((0.7 + 0.75) / 2), "tp": 1.0, "truncated": 0}
    assert [s["name"] for s in result["scorers"]] == [explicit, implicit, "lexicon"]
    assert [s["max_tokens"] for s in result["scorers"]] == [38, 38, None]


def test_one_process_writes_an_output(generations: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.jsonl"
    with only_writer(output), pytest.raises(InputError, match="another process is writing"):
        score_generations(generations, ["lexicon"], output)
    assert [path.name for path in tmp_path.iterdir()] == ["g.jsonl"]


def test_another_classifier_later(generations: Path, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "c", labels=["ok", "toxic"], problem_type=None)
    first, second, both = tmp_path / "1.jsonl", tmp_path / "2.jsonl", tmp_path / "both.jsonl"
    score_generations(generations, ["lexicon"], first)
    score_generations(first, [f"hf:{folder}#toxic"], second)
    score_generations(generations, ["lexicon", f"hf:{folder}#toxic"], both)
    assert second.read_bytes() == both.read_bytes()
    score_generations(first, [f"hf:{folder}#toxic"], first)  # in place
    assert first.read_bytes() == both.read_bytes()


def test_the_sidecar_says_what_made_the_texts(model_dir: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a"}])
    generate_file(model_dir, tmp_path / "p.jsonl", tmp_path / "g.jsonl", Sampling(2, 3, seed=9))
    score_generations(tmp_path / "g.jsonl", ["lexicon"], tmp_path / "s.jsonl")
    score_generations(tmp_path / "s.jsonl", ["lexicon"], tmp_path / "again.jsonl")
    for name in ("s.jsonl", "again.jsonl"):
        made_with = read_json(sidecar_path(tmp_path / name))["generations"]["made_with"]
        assert made_with["sampling"]["seed"] == 9 and made_with["model"]["identity"]


def test_texts_that_were_cut_are_counted(generations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored_generations, "_TEXTS_AT_ONCE", 2)
    write_jsonl(generations, [{"continuations": ["cat", "tree " * 100, "you", "and " * 100]}])
    spec = f"detoxify:original@{save_detoxify(tmp_path / 'd', 'original')}"
    result = score_generations(generations, [spec], tmp_path / "s.jsonl")
    assert result["results"][spec]["truncated"] == 2


def test_uneven_prompts_have_scores_but_no_mean_of_maxima(generations: Path, tmp_path: Path) -> None:
    write_jsonl(generations, [{"continuations": ["idiot"]}, {"continuations": ["tree", "stupid"]}])
    result = score_generations(generations, ["lexicon"], tmp_path / "s.jsonl")
    assert result["results"]["lexicon"]["emt"] is None
    assert [row["scores"]["lexicon"] for row in read_jsonl(tmp_path / "s.jsonl")] == [
        pytest.approx([0.7]), pytest.approx([0.0, 0.5]),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_goes_on_and_writes_the_same_file(tmp_path: Path) -> None:
    generations = tmp_path / "many.jsonl"
    rows = [{"id": i, "continuations": [f"the tree {i} {j} is kind" * (j % 4) for j in range(25)]} for i in range(280)]
    write_jsonl(generations, rows)
    folder = save_detoxify(tmp_path / "d", "original")
    command = ["score-generations", "--generations", str(generations), "--device", "cpu"]
    command += ["--scorer", f"detoxify:original@{folder}", "--scorer", "lexicon"]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    kill_after_lines([*command, "--output", str(killed)], partial_path(killed), 1)
    assert not killed.exists() and not sidecar_path(killed).exists()
    assert main([*command, "--output", str(killed)]) == 0
    assert main([*command, "--output", str(whole)]) == 0
    assert killed.read_bytes() == whole.read_bytes() and not partial_path(killed).exists()


def test_what_is_finished_is_not_scored_again(
    generations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Scorer):
        name, labels = "failing", ("toxicity",)
        seen: list[str] = []  # noqa: RUF012
        broken = True

        def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
            if self.broken and "" in texts:
                raise ValueError("nothing to read")
            self.seen.extend(texts)
            return {"toxicity": np.full(len(texts), 0.25)}

    monkeypatch.setattr(scored_generations, "_TEXTS_AT_ONCE", 1)
    monkeypatch.setattr(scored_generations, "load_scorer", lambda spec, device: Failing())
    with pytest.raises(NumericsError, match="failing failed at text 2: ValueError: nothing to read"):
        score_generations(generations, ["failing"], tmp_path / "s.jsonl")
    assert not (tmp_path / "s.jsonl").exists()
    Failing.broken = False
    score_generations(generations, ["failing"], tmp_path / "s.jsonl")
    assert Failing.seen == ["you idiot", "kind tree", "", "a stupid, stupid cat"]


def test_faults_are_told_together_and_first(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    write_jsonl(bad, [{"continuations": "x"}, {"continuations": []}, {"continuations": ["x"], "scores": 1}, {}])
    with pytest.raises(ConfigError) as raised:
        score_generations(bad, ["lexicon"], tmp_path / "s.jsonl")
    assert len(raised.value.faults) == 4
    write_jsonl(bad, [{"continuations": ["x"]}])
    folder = save_classifier(tmp_path / "c", labels=["a", "b"], problem_type=None)
    with pytest.raises(InputError, match="name one of them"):
        score_generations(bad, ["lexicon", f"hf:{folder}"], tmp_path / "s.jsonl")
    with pytest.raises(InputError, match="is not known"):
        score_generations(bad, ["lexicon", "nothing"], tmp_path / "s.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"bad.jsonl", "c"}


def test_the_verb(generations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["score-generations", "--generations", str(generations), "--output", str(tmp_path / "s.jsonl")]
    assert main([*command, "--scorer", "lexicon"]) == 0
    shown = capsys.readouterr().out
    assert "lexicon: EMT 0.7250, TP 1.0000\n" in shown, "of 0 texts that were cut nothing is said"
    assert shown.splitlines()[1].startswith("warning: the lexicon counts listed words")
    assert main([*command, "--scorer", "lexicon", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["texts"] == 4 and "never to be reported" in result["scorers"][0]["warning"]
    assert main([*command, "--scorer", "detoxify:unbiased@nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
