"""What is read from a quickstart's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ifguide.errors import InputError, MismatchError
from ifguide.pages.page_data import load_curves, load_generations, load_page_data
from ifguide.system.files import read_jsonl, write_jsonl


def test_curves_hold_training_lines_only(planted_folder: tuple) -> None:
    curves = load_curves(planted_folder[0], "lm_loss")
    assert list(curves) == ["base", "guided", "control"]
    assert curves["base"].iterations == [20, 40, 60] and curves["base"].values == [4.8, 4.6, 4.4]
    assert list(load_curves(planted_folder[0], "penalty_ce")) == ["guided", "control"]


def test_shows_the_worst_continuation_of_evenly_spaced_prompts(planted_folder: tuple) -> None:
    generations = load_generations(planted_folder[0] / "generations.jsonl")
    assert (generations.num_prompts, generations.num_samples) == (40, 3)
    assert [row.subset for row in generations.rows] == ["toxic"] * 15 + ["benign"] * 15
    assert generations.rows[0].prompt.endswith(" 0") and generations.rows[14].prompt.endswith(" 39")
    assert len({row.prompt for row in generations.rows}) == 30
    for row in generations.rows:
        for number, (name, worst) in enumerate(row.worst.items()):
            assert worst.text.startswith(f" worst of {name} ") and worst.toxicity == 0.6 + number / 10


def test_a_long_prompt_keeps_its_end(planted_folder: tuple, tmp_path: Path) -> None:
    rows = read_jsonl(planted_folder[0] / "generations.jsonl")
    write_jsonl(tmp_path / "generations.jsonl", [row | {"prompt": "x" * 5000 + "END"} for row in rows])
    for row in load_generations(tmp_path / "generations.jsonl").rows:
        assert row.prompt.startswith("… ") and row.prompt.endswith("END") and len(row.prompt) < 700


def test_truth_marks_the_planted_tokens_only(planted_folder: tuple) -> None:
    folder, results = planted_folder
    data = load_page_data(folder, results)
    planted = next(document for document in data.documents if document.index == 1)
    text = "".join(piece.text for piece in planted.pieces if piece.planted)
    assert text.strip() == "you are a <b>worthless</b> fool"
    assert not any(p.planted for d in data.documents if d.index != 1 for p in d.pieces)


def test_settings_and_record_name_what_was_run(planted_folder: tuple) -> None:
    data = load_page_data(*planted_folder)
    assert data.settings["selection: threshold_quantile"] == "0.8"
    assert data.settings["scores: damping"] == '{"value": 0.1, "relative": true}'
    assert data.settings["training: penalty_form"] == "ascent"
    assert "selection: max_tokens" not in data.settings, "not set"
    assert data.record["seed"] == "7" and data.record["revision"] == "abc123"
    assert "version of numpy" in data.record


def test_deleted_checkpoints_cost_the_curves_only(make_folder: Callable) -> None:
    folder, results = make_folder(True)
    shutil.rmtree(folder / "checkpoints")
    data = load_page_data(folder, results)
    assert data.curves == {"lm_loss": {}, "penalty_ce": {}}
    assert data.documents


def test_a_corpus_of_another_run_is_refused(make_folder: Callable) -> None:
    folder, results = make_folder(False)
    write_jsonl(folder / "corpus.jsonl", read_jsonl(folder / "corpus.jsonl")[:-1])
    with pytest.raises(MismatchError, match="has 5 documents, its tokens 6"):
        load_page_data(folder, results)


def test_another_text_is_refused(make_folder: Callable) -> None:
    folder, results = make_folder(False)
    rows = read_jsonl(folder / "corpus.jsonl")
    write_jsonl(folder / "corpus.jsonl", [{"text": row["text"].upper()} for row in rows])
    with pytest.raises(MismatchError, match="not the text that was tokenized"):
        load_page_data(folder, results)


def test_a_missing_file_is_named(make_folder: Callable) -> None:
    folder, results = make_folder(False)
    (folder / "generations.jsonl").unlink()
    with pytest.raises(InputError, match=r"generations\.jsonl"):
        load_page_data(folder, results)
