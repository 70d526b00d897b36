"""`inspect` and `mask-stats` as commands: what they print, and how they refuse."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from ifguide import cli
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES
from ifguide.data.text.bpe import train_bpe
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.inspection import documents
from ifguide.inspection.documents import inspect
from ifguide.inspection.terminal import document_lines, wants_colour
from ifguide.pages.inspection import Rule
from ifguide.pages.text import densest, split_text, visible
from tests.inspection.conftest import HOSTILE, Pipeline, run
from tests.support.folders import write_rows

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def files(pipeline: Pipeline) -> list[str]:
    return ["--data", pipeline.data, "--mask", pipeline.mask, "--scores", pipeline.scores]


def test_the_terminal_shows_text_and_selection(pipeline: Pipeline, files: list[str], capsys) -> None:
    assert cli.main(["inspect", *files, "--top", "50"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text, "no terminal, no colour"
    plain = text.replace("⟦", "").replace("⟧", "")
    assert all(visible(document) in plain for document in HOSTILE)
    documents_part = text.split("\n", 2)[2]  # after the legend
    inside = "".join(re.findall("⟦(.*?)⟧", documents_part, re.S))
    assert cli.main(["inspect", *files, "--top", "50", "--json"]) == 0
    documents = json.loads(capsys.readouterr().out)["documents"]
    pieces = [piece for document in documents for piece in document["pieces"] if any(piece["strengths"])]
    assert inside == visible("".join(piece["text"] for piece in pieces)) != ""


def test_colour_adds_nothing_but_colour(pipeline: Pipeline) -> None:
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    found = inspect(pipeline.data, pipeline.mask, pipeline.scores, tokenizer, 50)
    plain, coloured = (document_lines(found, colour) for colour in (False, True))
    assert [_COLOUR.sub("", line) for line in coloured] == plain != coloured
    assert all(line.endswith("\x1b[0m") for line in coloured if line.count("\x1b[") and line.rstrip("⟧")[-1:] == "m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_when_colour_is_wanted(monkeypatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert wants_colour(Terminal()) and not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(Terminal())


def test_one_document(files: list[str], capsys) -> None:
    assert cli.main(["inspect", *files, "--document", "3", "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)["documents"]
    assert document["index"] == 3
    assert "".join(piece["text"] for piece in document["pieces"]) == HOSTILE[3] + "\0"


def test_the_densest_stretch() -> None:
    assert densest([0, 0, 1, 1, 0, 1, 0], 3) == 1
    assert densest([0, 1], 3) == 0


def test_how_the_mask_was_made_and_its_phrases(pipeline: Pipeline, tmp_path: Path) -> None:
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    found = inspect(pipeline.data, pipeline.mask, pipeline.scores, tokenizer, 50)
    record = json.loads(Path(f"{pipeline.mask}.json").read_text())
    assert found.rule == Rule(record["threshold"], record["parameters"]["window"], None, "influence")
    tokens, mask = TokenDataset.open(pipeline.data), load_aligned(pipeline.mask, None, PENALTIES)
    runs: Counter[tuple[int, ...]] = Counter()
    for index in range(tokens.num_documents):
        ids, kept = tokens.document(index).tolist(), np.asarray(mask.dataset.document(index)) > 0
        for is_kept, some in groupby(zip(kept, ids), key=lambda pair: bool(pair[0])):
            if is_kept:
                runs[tuple(one for _, one in some)] += 1
    expected = sorted(runs.items(), key=lambda item: (-item[1], item[0]))[:12]
    texts = ["".join(text for text, _ in split_text(ids, tokenizer.token_bytes)) for ids, _ in expected]
    assert found.phrases == list(zip(texts, (count for _, count in expected))) != []
    run("build-mask", "--scores", pipeline.scores, "--method", "random", "--output", tmp_path / "random",
        "--max-fraction", "0.2", "--threshold-quantile", "0.8")  # fmt: skip
    by_chance = inspect(pipeline.data, tmp_path / "random", pipeline.scores, tokenizer, 50)
    assert by_chance.threshold is not None and by_chance.rule == Rule(None, 0, None, "random")


def test_the_terminal_waits_for_nothing_that_only_the_page_shows(files: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr(documents, "collect", None)
    monkeypatch.setattr(documents, "histogram", None)
    assert cli.main(["inspect", *files, "--top", "2"]) == 0
    assert "selected" in capsys.readouterr().out


def test_the_page_is_written(files: list[str], tmp_path: Path, capsys) -> None:
    assert cli.main(["inspect", *files, "--top", "2", "--html", str(tmp_path / "page.html")]) == 0
    assert "page.html: 2 documents" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_recorded_tokenizer_is_found(tmp_path: Path, capsys) -> None:
    train_bpe(["kind words only", "more words"], 300, tmp_path / "tokenizer.json")
    rows = write_rows(tmp_path / "c.jsonl", [{"text": "kind words 😀"}])
    run("preprocess", "--input", rows, "--tokenizer-type", "HFTokenizer", "--vocab-file", tmp_path / "tokenizer.json",
        "--output-prefix", tmp_path / "c")  # fmt: skip
    tokens = TokenDataset.open(tmp_path / "c_text_document")
    write_aligned(tmp_path / "m", tokens, np.ones(tokens.num_tokens, np.uint8), np.uint8, {"encoding": "binary"})
    capsys.readouterr()
    files = ["--data", str(tmp_path / "c_text_document"), "--mask", str(tmp_path / "m")]
    assert cli.main(["inspect", *files]) == 0
    assert "⟦kind words 😀⟧" in capsys.readouterr().out
    (tmp_path / "tokenizer.json").rename(tmp_path / "moved.json")
    assert cli.main(["inspect", *files]) == 2
    assert "is gone; say where it is with --vocab-file" in capsys.readouterr().err
    assert cli.main(["inspect", *files, "--vocab-file", str(tmp_path / "moved.json")]) == 0
    capsys.readouterr()
    assert cli.main(["inspect", *files, "--tokenizer-type", "CharLevelTokenizer"]) == 2
    assert "was made with another tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--top", "0"], "--top 0"),
        (["--document", "8"], "documents 0 to 7"),
        (["--document", "-1"], "documents 0 to 7"),
        (["--mask", "{scores}"], "holds scores, not penalties"),
        (["--scores", "{mask}"], "holds penalties, not scores"),
        (["--data", "nowhere"], "nowhere"),
        (["--html", "/nonexistent/page.html"], "/nonexistent does not exist"),
        (["--tokenizer-type", "Nope"], "tokenizer type 'Nope'"),
    ],
)
def test_inspect_refuses(pipeline: Pipeline, files: list[str], change: list[str], said: str, capsys) -> None:
    change = [word.format(scores=pipeline.scores, mask=pipeline.mask) for word in change]
    assert cli.main(["inspect", *files, *change]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ifguide inspect: ") and error.count("\n") == 1 and said in error


def test_mask_stats(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    run("build-mask", "--scores", pipeline.scores, "--method", "random", "--output", tmp_path / "random",
        "--max-fraction", "0.2", "--threshold-quantile", "0.8")  # fmt: skip
    capsys.readouterr()
    masks = ["--mask", pipeline.mask, str(tmp_path / "random")]
    assert cli.main(["mask-stats", *masks, "--scores", pipeline.scores, "--output", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "most selected phrases" in text and "Jaccard" in text and "\x1b" not in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "mask_stats.json", "mask_stats.html",
    }  # fmt: skip
    first, second = json.loads((tmp_path / "out/mask_stats.json").read_text())["masks"]
    assert first["selected"] == second["selected"]
    assert sum(first["share_histogram"]) == len([text for text in HOSTILE if text])
    page = (tmp_path / "out/mask_stats.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<script" not in page
    for mask in (first, second):
        assert f"{mask['selected']:,} of {mask['tokens']:,} tokens selected" in page


def test_mask_stats_without_a_tokenizer_names_ids(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    """A mask whose data has no sidecar: counts stay, texts are unknown."""
    from ifguide.inspection.mask_stats import as_dict, mask_statistics

    result = as_dict(mask_statistics([pipeline.mask], pipeline.data), 5, None)
    assert result["masks"][0]["top_tokens"][0]["text"] is None and result["overlaps"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mask", "{mask}", "--top", "0"], "--top 0"),
        (["--mask", "{scores}"], "holds scores, not penalties"),
        (["--mask", "{mask}", "--data", "nowhere"], "nowhere"),
        (["--mask", "{mask}", "nothing"], "nothing"),
        (["--mask", "{mask}", "--tokenizer-type", "Nope"], "tokenizer type 'Nope'"),
    ],
)
def test_mask_stats_refuses(pipeline: Pipeline, words: list[str], said: str, capsys) -> None:
    words = [word.format(scores=pipeline.scores, mask=pipeline.mask) for word in words]
    assert cli.main(["mask-stats", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ifguide mask-stats: ") and error.count("\n") == 1 and said in error
