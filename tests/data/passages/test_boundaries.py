"""Boundaries beside the tokens: by preprocess, once, and refused where they are another dataset's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.indexed import TokenDataset
from ifguide.data.passages import boundaries
from ifguide.data.passages.boundaries import document_groups, find_boundaries, known_boundaries
from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError

pytest.importorskip("torch")


@pytest.fixture
def words(tmp_path) -> list[str]:
    texts = ["One. Two\nthree", "", "four!", "五。六"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return [
        "preprocess", "--input", str(tmp_path / "in.jsonl"), "--output-prefix", str(tmp_path / "P"),
        "--tokenizer-type", "CharLevelTokenizer", "--append-eod",
    ]  # fmt: skip


def test_preprocess_writes_them(tmp_path, words, capsys):
    assert main([*words, "--spans", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    tokens = TokenDataset.open(tmp_path / "P_text_document")
    found = known_boundaries(tokens)
    assert found is not None and found.prefix == result["spans"] == str(tmp_path / "P_text_document.spans")
    assert found.sidecar["kind"] == "boundaries" and found.sidecar["data"]["tokens"] == tokens.num_tokens
    text = bytes(tokens.tokens.astype(np.uint8))
    assert [text[i] for i in np.flatnonzero(found.values & 1)] == [10, 0, 0, 0]
    assert [text[i] for i in np.flatnonzero(found.values == 2)] == [*b".!", "。".encode()[-1]]
    # nothing to do the second time, and they have not to be made again
    assert main([*words, "--spans", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"]

    def no_reader(data: str) -> TextReader:
        raise AssertionError(data)

    assert find_boundaries(tokens, no_reader).values.tolist() == found.values.tolist()


def test_those_of_an_earlier_rule_are_not_taken(tmp_path, words, monkeypatch):
    assert main([*words, "--spans"]) == 0
    tokens = TokenDataset.open(tmp_path / "P_text_document")
    monkeypatch.setattr(boundaries, "RULES", boundaries.RULES + 1)
    assert known_boundaries(tokens) is None


def test_pieces_do_not_change_them(tmp_path, words, monkeypatch):
    assert main(words) == 0
    tokens = TokenDataset.open(tmp_path / "P_text_document")
    whole = find_boundaries(tokens, TextReader.of_data).values.tolist()
    monkeypatch.setattr(boundaries, "_CHUNK_TOKENS", 1)
    again = boundaries.write_boundaries(tokens, TextReader.of_data(tokens.prefix)).values.tolist()
    assert again == whole and any(whole)


def test_groups_hold_every_document_once():
    starts = np.array([0, 3, 3, 4, 20, 21, 22])
    assert list(document_groups(starts, 4)) == [(0, 3), (3, 4), (4, 6)]
    assert list(document_groups(np.array([0]), 4)) == []


def test_a_tokenizer_that_is_gone_is_named(tmp_path, words):
    assert main(words) == 0
    tokens = TokenDataset.open(tmp_path / "P_text_document")

    def gone(data: str) -> TextReader:
        raise InputError("tokenizer file x is gone")

    with pytest.raises(InputError, match=r"no boundaries of lines and sentences yet.*x is gone"):
        find_boundaries(tokens, gone)
