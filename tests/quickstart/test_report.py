"""What is read from a quickstart's folder, against a plain reading of the same files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.indexed import TokenDataset
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer
from ifguide.errors import InputError, MismatchError
from ifguide.inspection.documents import inspect
from ifguide.inspection.ranking import Ranking
from ifguide.pages.quickstart_data import TokenMarks
from ifguide.quickstart import report
from ifguide.quickstart.report import load_curves, load_generations, load_page_data, top_documents
from ifguide.system.files import read_jsonl, write_jsonl

MODELS = ("base", "guided", "control")


@pytest.fixture
def folder(planted_folder: tuple) -> Path:
    return planted_folder[0]


@pytest.fixture
def texts(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / "corpus.jsonl").read_text().splitlines()]


@pytest.fixture
def tokens(folder: Path) -> TokenDataset:
    return TokenDataset.open(folder / "data/corpus_text_document")


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return build_tokenizer("HFTokenizer", folder / "data/tokenizer.json")


@pytest.fixture
def marks(tokens: TokenDataset) -> TokenMarks:
    generator = np.random.default_rng(3)
    count = tokens.num_tokens
    return TokenMarks(generator.normal(size=count), generator.random(count) < 0.3, generator.random(count) < 0.2)


def by_index(tokens: TokenDataset, marks: TokenMarks) -> Ranking:
    """Documents in the order of the corpus."""
    selected = np.add.reduceat(marks.selected.astype(np.int64), tokens.starts[:-1])
    return Ranking(np.arange(tokens.num_documents), np.zeros(tokens.num_documents), selected, 0.0)


def test_pieces_give_back_every_document(texts, tokens, marks, tokenizer) -> None:
    shown = top_documents(tokens, marks, tokenizer, by_index(tokens, marks), count=len(texts))
    assert sorted(document.index for document in shown) == list(range(len(texts)))
    for document in shown:
        assert "".join(text for text, _ in document.pieces) == texts[document.index]


def test_a_character_of_several_tokens_is_one_piece(texts, tokens, marks, tokenizer) -> None:
    shown = {d.index: d for d in top_documents(tokens, marks, tokenizer, by_index(tokens, marks), count=len(texts))}
    emoji = [(text, count) for text, count in shown[3].pieces if "😀" in text]
    assert len(emoji) == 1 and emoji[0][1] == len("😀".encode())
    assert not any("\ufffd" in text for text, _ in shown[3].pieces)


def test_marks_follow_the_tokens(texts, tokens, marks, tokenizer) -> None:
    for document in top_documents(tokens, marks, tokenizer, by_index(tokens, marks), count=len(texts)):
        begin = int(tokens.starts[document.index])
        span = slice(begin, begin + document.num_tokens)
        assert document.scores.tolist() == marks.scores[span].astype(np.float32).tolist()
        assert (document.strengths > 0).tolist() == marks.selected[span].tolist()
        assert document.planted.tolist() == marks.planted[span].tolist()
        assert sum(count for _, count in document.pieces) == document.num_tokens
        assert span.stop == tokens.starts[document.index + 1] - 1, "all but the EOD token"


def test_the_order_is_that_of_the_inspector(folder, planted_folder) -> None:
    shown = load_page_data(*planted_folder).documents
    inspector = inspect(
        folder / "data/corpus_text_document", folder / "data/mask", folder / "data/scores",
        build_tokenizer("HFTokenizer", folder / "data/tokenizer.json"), 100,
    )  # fmt: skip
    expected = [(one.index, one.measure, one.num_selected) for one in inspector.documents if one.num_selected]
    assert [(one.index, one.measure, one.num_selected) for one in shown] == expected != []


def test_documents_without_selected_tokens_are_left_out(texts, tokens, marks, tokenizer) -> None:
    selected = np.zeros(tokens.num_tokens, bool)
    selected[tokens.starts[2] + 1] = True
    marks = TokenMarks(marks.scores, selected, None)
    (document,) = top_documents(tokens, marks, tokenizer, by_index(tokens, marks), count=20)
    assert (document.index, document.num_selected) == (2, 1)
    assert document.planted is None


def test_a_long_document_shows_its_densest_part(texts, tokens, marks, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(report, "_SHOWN_TOKENS", 10)
    for document in top_documents(tokens, marks, tokenizer, by_index(tokens, marks), count=2):
        start = int(tokens.starts[document.index])
        kept = np.where(marks.selected, marks.scores, 0)[start : start + document.num_tokens]
        sums = [kept[first : first + 10].sum() for first in range(len(kept) - 9)]
        assert sums[document.first] == pytest.approx(max(sums))
        assert len(document.strengths) == 10 == sum(count for _, count in document.pieces)
        assert "".join(text for text, _ in document.pieces) in texts[document.index]


def test_curves_hold_training_lines_only(planted_folder: tuple) -> None:
    curves = load_curves(planted_folder[0], "lm_loss", MODELS)
    assert list(curves) == ["base", "guided", "control"]
    assert curves["base"].iterations == [20, 40, 60] and curves["base"].values == [4.8, 4.6, 4.4]
    assert list(load_curves(planted_folder[0], "penalty_ce", MODELS)) == ["guided", "control"]


def test_shows_the_worst_continuation_of_evenly_spaced_prompts(planted_folder: tuple) -> None:
    generations = load_generations(planted_folder[0] / "generations.jsonl", MODELS)
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
    for row in load_generations(tmp_path / "generations.jsonl", MODELS).rows:
        assert row.prompt.startswith("… ") and row.prompt.endswith("END") and len(row.prompt) < 700


def test_truth_marks_the_planted_tokens_only(planted_folder: tuple) -> None:
    folder, results = planted_folder
    data = load_page_data(folder, results)
    planted = next(document for document in data.documents if document.index == 1)
    text = "".join(text for text, at in planted.spans() if planted.planted[at].any())
    assert text.strip() == "you are a <b>worthless</b> fool"
    assert not any(document.planted.any() for document in data.documents if document.index != 1)


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


def test_a_fourth_model_is_read_in_the_results_order(make_folder: Callable) -> None:
    folder, results = make_folder(True)
    rows = read_jsonl(folder / "generations.jsonl")
    fourth = [row | {"model": "dpo"} for row in rows if row["model"] == "base" and row["id"] != "toxic-0"]
    write_jsonl(folder / "generations.jsonl", rows + fourth)
    shutil.copytree(folder / "checkpoints/base", folder / "checkpoints/dpo")
    data = load_page_data(folder, {"dpo": dict(results["base"]), **results})
    assert list(data.curves["lm_loss"]) == ["dpo", *MODELS]
    assert list(data.generations.rows[0].worst) == list(MODELS), "a model that said nothing there"
    assert all(list(row.worst) == ["dpo", *MODELS] for row in data.generations.rows[1:])
