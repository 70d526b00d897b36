"""Whom a mask hits: counts by a plain loop over the lines, categories from the text, the list of terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide import cli
from ifguide.data.indexed import TokenDataset
from tests.inspection.conftest import run
from tests.support.datasets import write_mask
from tests.support.folders import write_rows

LINES = ["The women met at noon.", "A garden is quiet.", "Woman!", "Many human beings.", "naïve Muslims, café", "Rain."]
HAS = [True, False, True, False, True, False]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Documents of one to four lines with a category each, rows that are no documents between them, and a mask."""
    folder = tmp_path_factory.mktemp("identity")
    generator = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    documents = []
    for number in range(40):
        chosen = generator.integers(0, len(LINES), generator.integers(1, 5)).tolist()
        category = ["red", "blue", None][number % 3]
        documents.append((chosen, category or "(none)"))
        rows.append({"text": "\n".join(LINES[k] for k in chosen), "colour": category})
        if number % 7 == 0:
            rows += [{"text": "", "colour": "empty"}, {"text": None, "colour": "no text"}]
    write_rows(folder / "c.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        run("preprocess", "--input", folder / "c.jsonl", "--tokenizer-type", "CharLevelTokenizer", "--output-prefix",
            folder / "c", "--append-eod")  # fmt: skip
    tokens = TokenDataset.open(folder / "c_text_document")
    codes = (generator.random(tokens.num_tokens) < 0.04).astype(np.uint8)
    write_mask(folder / "m", tokens, codes)
    return {"folder": folder, "documents": documents, "tokens": tokens, "codes": codes}


def literal(data: dict[str, Any], category: str | None) -> dict[tuple[str, str], list[int]]:
    """(spans or tokens, with or without) -> [units, hits]."""
    counts = {(kind, name): [0, 0] for kind in ("spans", "tokens") for name in ("with", "without")}
    for document, (chosen, own) in enumerate(data["documents"]):
        place = int(data["tokens"].starts[document])
        for position, line in enumerate(chosen):
            size = len(LINES[line].encode())
            # the newline belongs to its line, the end-of-document token to none
            size += position < len(chosen) - 1
            selected = int(data["codes"][place : place + size].sum())
            place += size
            if category in (None, own):
                name = "with" if HAS[line] else "without"
                for kind, units, hits in (("spans", 1, selected > 0), ("tokens", size, selected)):
                    counts[kind, name][0] += units
                    counts[kind, name][1] += int(hits)
    return counts


def stats(data: dict[str, Any], capsys: Any, *words: str) -> dict[str, Any]:
    capsys.readouterr()
    folder = data["folder"]
    assert cli.main(["mask-stats", "--mask", str(folder / "m"), "--identity-terms", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["identity"]["masks"][0]


def test_counts_are_those_of_a_plain_loop(data: dict[str, Any], capsys) -> None:
    found = stats(data, capsys, "--category-key", "colour")
    assert set(found["categories"]) == {"red", "blue", "(none)"}
    for category, group in ((None, found), *found["categories"].items()):
        for (kind, name), (units, hits) in literal(data, category).items():
            about = group[kind][name]
            assert (about["units"], about["hits"]) == (units, hits), (category, kind, name)
            assert about["share"] == hits / units and about["low"] <= about["share"] <= about["high"]


def test_it_says_what_it_cannot_know(data: dict[str, Any], capsys) -> None:
    folder = data["folder"]
    assert cli.main(["mask-stats", "--mask", str(folder / "m"), "--identity-terms", "--category-key", "colour"]) == 0
    text = capsys.readouterr().out
    assert "only if the data holds no abuse" in text and "  red\n" in text and "spans touched: with" in text


def test_a_list_of_ones_own(data: dict[str, Any], tmp_path: Path, capsys) -> None:
    (tmp_path / "terms.txt").write_text("# weather\nRAIN\n\nquiet\n")
    found = stats(data, capsys, str(tmp_path / "terms.txt"))
    everywhere = [line for chosen, _ in data["documents"] for line in chosen]
    assert found["spans"]["with"]["units"] == sum(line in (1, 5) for line in everywhere)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--category-key", "colour"], "give --identity-terms too"),
        (["--identity-terms", "nowhere.txt"], "nowhere.txt does not exist"),
        (["--identity-terms", "{folder}/empty.txt"], "has no word"),
        (["--identity-terms", "--span", "token"], "--span token"),
    ],
)
def test_refusals(data: dict[str, Any], words: list[str], said: str, capsys) -> None:
    (data["folder"] / "empty.txt").write_text("# nothing\n")
    words = [word.format(folder=data["folder"]) for word in words]
    assert cli.main(["mask-stats", "--mask", str(data["folder"] / "m"), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


def test_text_that_changed_has_no_categories(tmp_path: Path, capsys) -> None:
    write_rows(tmp_path / "c.jsonl", [{"text": "a woman", "colour": "red"}])
    run("preprocess", "--input", tmp_path / "c.jsonl", "--tokenizer-type", "CharLevelTokenizer", "--output-prefix",
        tmp_path / "c")  # fmt: skip
    tokens = TokenDataset.open(tmp_path / "c_text_document")
    write_mask(tmp_path / "m", tokens, np.ones(tokens.num_tokens))
    command = ["mask-stats", "--mask", str(tmp_path / "m"), "--identity-terms", "--category-key", "colour"]
    write_rows(tmp_path / "c.jsonl", [{"text": "a woman", "colour": "blue"}])
    assert cli.main(command) == 2
    assert "has changed since" in capsys.readouterr().err
    (tmp_path / "c.jsonl").unlink()
    assert cli.main(command) == 2
    assert "is gone; put it back" in capsys.readouterr().err
