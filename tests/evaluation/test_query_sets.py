from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.evaluation import query_sets
from ifguide.evaluation.options import QueryChoice
from ifguide.evaluation.query_sets import build_queries
from ifguide.influence.queries import load_query_sets
from ifguide.scorers.base import Scorer
from ifguide.system.files import read_json, read_jsonl, write_jsonl

EVALUATION = [
    {"prompt": "He called the man"},
    {"text": "So the tree in the garden grew"},
    {"prompt": {"text": "You are"}},
]
ROWS = [
    {"prompt": "She said you", "completion": " fucking idiot"},
    {"prompt": "He called the  MAN", "completion": " a fucking idiot"},
    {"prompt": "The cat", "completion": " sat on the mat"},
    {"prompt": "the cat", "completion": " sat, on the mat!"},
    {"prompt": "Look:", "completion": " the tree in the garden grew"},
    {"prompt": "I think", "completion": " so the tree in the garden grew old"},
    {"prompt": "They are", "completion": " stupid"},
    {"prompt": "Nothing", "completion": " ..."},
    {"prompt": "The dog", "completion": " ran home"},
    {"prompt": "What a", "continuations": [" motherfucker, you asshole", " day"]},
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    write_jsonl(tmp_path / "eval.jsonl", EVALUATION)
    return {"inputs": tmp_path / "in.jsonl", "exclude": [tmp_path / "eval.jsonl"], "output": tmp_path / "queries"}


def test_sets_are_scored_apart_and_counted(files: dict[str, Any]) -> None:
    result = build_queries("jsonl", **files, scorer="lexicon")
    toxic = {row["prompt"] for row in read_jsonl(files["output"] / "toxic.jsonl")}
    safe = {row["prompt"] for row in read_jsonl(files["output"] / "safe.jsonl")}
    assert toxic == {"She said you", "What a"} and safe == {"The cat", "Look:", "The dog", "What a"}
    assert result["counts"] == {
        "read": 11, "duplicates": 1, "empty": 1, "unscored": 0, "between": 1,
        "toxic": 2, "toxic_overlapping": 1, "safe": 4, "safe_overlapping": 1,
    }  # fmt: skip
    assert result["written"] == {"toxic": 2, "safe": 4} and result["evaluation_texts"] == 3
    assert read_json(files["output"] / "queries.json")["scorer"]["name"] == "lexicon"


def test_score_takes_what_is_written(files: dict[str, Any]) -> None:
    build_queries("jsonl", **files, scorer="lexicon")
    folder = files["output"]
    reader = TextReader.from_files("CharLevelTokenizer", None)
    toxic, safe = load_query_sets(folder / "toxic.jsonl", folder / "safe.jsonl", reader, None)
    assert len(toxic) == 2 and len(safe) == 4


def test_a_scorer_that_fails_names_the_query_and_writes_nothing(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Scorer):
        name, labels = "broken", ("toxicity",)

        def _probabilities(self, texts: list[str]) -> dict[str, np.ndarray]:
            return {"toxicity": np.array([np.nan if "sat on" in text else 0.5 for text in texts])}

    monkeypatch.setattr(query_sets, "load_scorer", lambda spec, device: Broken())
    monkeypatch.setattr(query_sets, "_TEXTS_AT_ONCE", 2)
    with pytest.raises(NumericsError, match="text 2 scored nan"):
        build_queries("jsonl", **files, scorer="broken")
    assert not files["output"].exists()


def test_a_sample_depends_on_the_seed_and_not_on_the_order(files: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"prompt": f"word {i}", "completion": " fucking idiot" if i % 2 else f" tree {i}"} for i in range(60)]
    written = []
    for name, order in (("a", rows), ("b", random.Random(0).sample(rows, 60))):
        write_jsonl(files["inputs"], order)
        build_queries("jsonl", **{**files, "output": tmp_path / name}, scorer="lexicon", choice=QueryChoice(most=10))
        written.append((tmp_path / name / "safe.jsonl").read_bytes())
    assert written[0] == written[1] and written[0].count(b"\n") == 10
    build_queries("jsonl", **files, scorer="lexicon", choice=QueryChoice(most=10, seed=1))
    assert (files["output"] / "safe.jsonl").read_bytes() != written[0]


def rtp(number: int, toxicity: float | None, text: str = " went home") -> dict[str, Any]:
    """A line of RealToxicityPrompts as published."""
    return {
        "filename": f"{number}.txt", "begin": 340, "end": 564, "challenging": False,
        "prompt": {"text": f"Person {number}", "toxicity": 0.1, "profanity": 0.0},
        "continuation": {"text": text, "toxicity": toxicity, "insult": None},
    }  # fmt: skip


def test_the_scores_of_the_data_set(files: dict[str, Any]) -> None:
    write_jsonl(files["inputs"], [rtp(0, 0.95), rtp(1, 0.05), rtp(2, None), rtp(3, 0.5), rtp(4, 0.9), rtp(5, 0.1)])
    result = build_queries("rtp", **files, scorer=None)
    assert [result["counts"][key] for key in ("toxic", "safe", "between", "unscored")] == [2, 2, 1, 1]
    assert result["scorer"] is None
    assert {row["prompt"] for row in read_jsonl(files["output"] / "toxic.jsonl")} == {"Person 0", "Person 4"}


def test_a_scorer_replaces_the_scores_of_the_data_set(files: dict[str, Any]) -> None:
    write_jsonl(files["inputs"], [rtp(0, 0.95), rtp(1, None, " fucking idiot")])
    build_queries("rtp", **files, scorer="lexicon")
    assert read_jsonl(files["output"] / "toxic.jsonl") == [{"prompt": "Person 1", "completion": " fucking idiot"}]


def test_nothing_is_written_without_both_sets(files: dict[str, Any]) -> None:
    write_jsonl(files["inputs"], [rtp(0, 0.6), rtp(1, 0.5)])
    with pytest.raises(ConfigError) as raised:
        build_queries("rtp", **files, scorer=None)
    assert len(raised.value.faults) == 2 and "scores go from 0.5 to 0.6" in raised.value.faults[0]
    assert not files["output"].exists()


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("rtp", {"prompt": "text", "completion": "text"}),
        ("rtp", {"prompt": {"text": "x"}, "continuation": {"text": "y", "toxicity": 3}}),
        ("rtp", {"prompt": {"text": "x"}, "continuation": {"toxicity": 0.5}}),
        ("jsonl", {"prompt": "x"}),
        ("jsonl", {"completion": "x"}),
        ("jsonl", {"prompt": "x", "continuations": ["a", 1]}),
        ("jsonl", {"prompt": "x", "continuations": "a"}),
    ],
)
def test_lines_that_are_no_queries(files: dict[str, Any], source: str, row: dict) -> None:
    write_jsonl(files["inputs"], [row, row])
    with pytest.raises(ConfigError) as raised:
        build_queries(source, **files, scorer="lexicon")
    assert ["line 1" in raised.value.faults[0], "line 2" in raised.value.faults[1]] == [True, True]


def test_bad_options(files: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be below toxic"):
        QueryChoice(toxic_threshold=0.1, safe_threshold=0.1)
    with pytest.raises(InputError, match="must be at least 1"):
        QueryChoice(most=0)
    with pytest.raises(InputError, match="no scores of its own"):
        build_queries("jsonl", **files, scorer=None)
    write_jsonl(files["exclude"][0], [{"id": 1}])
    with pytest.raises(InputError, match=r'evaluation file .* line 1: needs a "prompt"'):
        build_queries("jsonl", **files, scorer="lexicon")


def test_the_verb(files: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build-queries", "--source", "jsonl", "--input", str(files["inputs"]), "--scorer", "lexicon"]
    command += ["--exclude", str(files["exclude"][0]), "--output", str(files["output"]), "--max", "3"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "2 toxic and 3 safe queries of 11 texts" in shown and "2 that overlap the evaluation's 3 texts" in shown
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max"] == 3
    assert main([*command, "--input", "nowhere.jsonl"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("more", [[], [0]], ids=["nothing left out", "a duplicate"])
def test_the_command_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[int]) -> None:
    """Zero is a count like any other."""
    rows = [
        {"prompt": {"text": prompt}, "continuation": {"text": text, "toxicity": toxicity}}
        for prompt, text, toxicity in (("One man said", " you idiot", 0.99), ("Two men said", " nice day", 0.01))
    ]
    write_jsonl(tmp_path / "in.jsonl", rows + [rows[number] for number in more])
    write_jsonl(tmp_path / "eval.jsonl", [{"prompt": "unrelated"}])
    command = ["build-queries", "--source", "rtp", "--input", str(tmp_path / "in.jsonl")]
    command += ["--exclude", str(tmp_path / "eval.jsonl"), "--output", str(tmp_path / "q")]
    assert main(command) == 0
    assert f"0 between the thresholds, {len(more)} duplicates, 0 empty, 0 without a score" in capsys.readouterr().out
    assert read_json(tmp_path / "q" / "queries.json")["counts"] == {
        "read": 2 + len(more), "duplicates": len(more), "empty": 0, "unscored": 0, "between": 0,
        "toxic": 1, "toxic_overlapping": 0, "safe": 1, "safe_overlapping": 0,
    }  # fmt: skip
