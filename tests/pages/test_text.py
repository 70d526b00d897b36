"""Tokens as text: whole characters, nothing lost, nothing hidden."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.text.bpe import train_bpe
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer
from ifguide.pages.text import listed, split_text, unlike_names, visible
from tests.inspection.conftest import HOSTILE

TEXTS = [text for text in HOSTILE if text]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_bpe(TEXTS, 300, path)
    return build_tokenizer("HFTokenizer", path)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    spm = pytest.importorskip("sentencepiece")
    prefix = tmp_path_factory.mktemp("spm") / "model"
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(["the parser reads the file", "kind words only", "a tree of nodes"] * 20),
        model_prefix=str(prefix), vocab_size=300, model_type="bpe", byte_fallback=True, minloglevel=2,
        normalization_rule_name="identity", hard_vocab_limit=False,
    )  # fmt: skip
    return build_tokenizer("SPMTokenizer", f"{prefix}.model")


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_pieces_are_the_text(bpe: Tokenizer, text: str) -> None:
    for tokenizer in (bpe, build_tokenizer("CharLevelTokenizer", None)):
        ids = tokenizer.encode(text)
        pieces = split_text(ids, tokenizer.token_bytes)
        assert "".join(piece for piece, _ in pieces) == text
        assert sum(count for _, count in pieces) == len(ids)
        assert "\ufffd" not in "".join(piece for piece, _ in pieces)


@pytest.mark.parametrize("text", ["the parser reads 日本 😀 naïve", "kind words", "a\nb"])
def test_sentencepiece_pieces_are_the_text(sentencepiece: Tokenizer, text: str) -> None:
    pieces = split_text(sentencepiece.encode(text), sentencepiece.token_bytes)
    assert "".join(piece for piece, _ in pieces).strip() == text


def test_other_decoders(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    words = Backend(models.WordPiece({"<unk>": 0, "walk": 1, "##ing": 2, "on": 3}, unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    words.save(str(tmp_path / "pieces.json"))
    tokenizer = build_tokenizer("HFTokenizer", tmp_path / "pieces.json")
    texts = split_text(tokenizer.encode("walking on"), tokenizer.token_bytes)
    assert [text for text, _ in texts] == [" walk", "ing", " on"]
    words.decoder = None
    words.save(str(tmp_path / "none.json"))
    tokenizer = build_tokenizer("HFTokenizer", tmp_path / "none.json")
    assert split_text([1, 3], tokenizer.token_bytes) == [(" walk", 1), (" on", 1)]


def test_a_character_of_several_tokens_is_one_piece() -> None:
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    assert split_text("a😀é".encode(), tokenizer.token_bytes) == [("a", 1), ("😀", 4), ("é", 2)]


def test_special_and_unknown_ids(bpe: Tokenizer) -> None:
    assert bpe.eod is not None
    assert split_text([bpe.eod, 10**6, 97], bpe.token_bytes)[:2] == [("<|endoftext|>", 1), ("", 1)]


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_decode_as_python_does(data: bytes) -> None:
    pieces = split_text(data, lambda index: bytes([index]))
    assert "".join(text for text, _ in pieces) == data.decode("utf-8", "replace")
    assert sum(count for _, count in pieces) == len(data)


@settings(deadline=None)
@given(st.text())
def test_nothing_stays_hidden(text: str) -> None:
    shown = visible(text)
    hidden = {letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}
    assert hidden <= {"\n", "\t"}
    assert not any(unicodedata.bidirectional(letter) in BIDI for letter in shown)


BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI", "BN"}


def test_ordinary_text_is_left_alone() -> None:
    assert visible("naïve שלום العربية 日本語 😀\n\tend") == "naïve שלום العربية 日本語 😀\n\tend"
    assert visible("a\U000e0041\U000e007f") == "a⟨U+E0041⟩⟨U+E007F⟩", "letters that no font draws"
    assert visible("\x1b[31m\x00\u202e") == "␛[31m␀⟨U+202E⟩"


def test_names_are_as_short_as_they_can_be() -> None:
    assert unlike_names(["a/x/mask", "b/x/mask"]) == ["a/x/mask", "b/x/mask"]
    assert unlike_names(["a/mask", "a/other"]) == ["mask", "other"]


@pytest.mark.parametrize(("parts", "said"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_listed(parts: list[str], said: str) -> None:
    assert listed(parts) == said
