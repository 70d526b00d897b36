"""Pieces of documents against a plain reading of the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.indexed import TokenDataset
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer
from ifguide.pages import documents
from ifguide.pages.documents import SHADES, TokenMarks, top_documents


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


def test_pieces_give_back_every_document(texts, tokens, marks, tokenizer) -> None:
    shown = top_documents(tokens, marks, tokenizer, count=len(texts))
    assert sorted(document.index for document in shown) == list(range(len(texts)))
    for document in shown:
        assert "".join(piece.text for piece in document.pieces) == texts[document.index]


def test_a_character_of_several_tokens_is_one_piece(texts, tokens, marks, tokenizer) -> None:
    shown = {d.index: d for d in top_documents(tokens, marks, tokenizer, count=len(texts))}
    emoji = [piece for piece in shown[3].pieces if "😀" in piece.text]
    assert len(emoji) == 1 and len(emoji[0].scores) == len("😀".encode())
    assert not any("\ufffd" in piece.text for piece in shown[3].pieces)


def test_marks_follow_the_tokens(texts, tokens, marks, tokenizer) -> None:
    for document in top_documents(tokens, marks, tokenizer, count=len(texts)):
        position = int(tokens.starts[document.index])
        for piece in document.pieces:
            span = slice(position, position + len(piece.scores))
            assert piece.scores == tuple(marks.scores[span])
            assert piece.selected == any(marks.selected[span])
            assert piece.planted == any(marks.planted[span])
            position = span.stop
        assert position == tokens.starts[document.index + 1] - 1, "all but the EOD token"


def test_ranks_by_the_sum_of_selected_scores(texts, tokens, marks, tokenizer) -> None:
    expected = []
    for index in range(tokens.num_documents):
        places = range(tokens.starts[index], tokens.starts[index + 1])
        expected.append((sum(marks.scores[at] for at in places if marks.selected[at]), index))
    expected.sort(key=lambda pair: (-pair[0], pair[1]))
    shown = top_documents(tokens, marks, tokenizer, count=3)
    assert [document.index for document in shown] == [index for _, index in expected[:3]]
    np.testing.assert_allclose([document.total for document in shown], [total for total, _ in expected[:3]])


def test_documents_without_selected_tokens_are_left_out(texts, tokens, marks, tokenizer) -> None:
    selected = np.zeros(tokens.num_tokens, bool)
    selected[tokens.starts[2] + 1] = True
    marks = TokenMarks(marks.scores, selected, None)
    (document,) = top_documents(tokens, marks, tokenizer, count=20)
    assert (document.index, document.num_selected) == (2, 1)
    assert not any(piece.planted for piece in document.pieces)


def test_a_long_document_shows_its_densest_part(texts, tokens, marks, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(documents, "_SHOWN_TOKENS", 10)
    for document in top_documents(tokens, marks, tokenizer, count=2):
        start = int(tokens.starts[document.index])
        kept = np.where(marks.selected, marks.scores, 0)[start : start + document.num_tokens]
        sums = [kept[first : first + 10].sum() for first in range(len(kept) - 9)]
        assert sums[document.first] == pytest.approx(max(sums))
        assert document.shown == 10 == sum(len(piece.scores) for piece in document.pieces)
        assert "".join(piece.text for piece in document.pieces) in texts[document.index]


def test_shades_are_symmetric_and_capped(texts, tokens, marks, tokenizer) -> None:
    full = marks.full_colour()
    for document in top_documents(tokens, marks, tokenizer, count=len(texts)):
        for piece in document.pieces:
            farthest = max(piece.scores, key=abs)
            assert piece.shade == int(np.sign(farthest)) * round(SHADES * min(1, abs(farthest) / full))


def test_zero_scores_have_no_colour(texts, tokens, marks, tokenizer) -> None:
    marks = TokenMarks(np.zeros(tokens.num_tokens), marks.selected, None)
    assert {p.shade for d in top_documents(tokens, marks, tokenizer, 6) for p in d.pieces} == {0}
