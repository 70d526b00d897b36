"""Each type against the original library that GPT-NeoX wraps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.data.text.tokenizers import CharLevelTokenizer, build_tokenizer
from ifguide.errors import InputError

TEXTS = [
    "The quick brown fox, don't you see it?",
    "two\n\n  lines\tand   spaces ",
    "Grüße, 世界 😀 \u00a0 zero\u200bwidth",
    "before<|endoftext|>after",
    "12345 x=y+z; CamelCase",
    "",
]


@pytest.fixture
def hf(vocabulary):
    return build_tokenizer("HFTokenizer", vocabulary("hf.json"))


@pytest.fixture
def gpt2(vocabulary):
    return build_tokenizer("GPT2BPETokenizer", vocabulary("vocab.json"), vocabulary("merges.txt"))


def test_hf_is_the_tokenizers_library(hf, vocabulary):
    from tokenizers import Tokenizer

    original = Tokenizer.from_file(str(vocabulary("hf.json")))
    assert hf.vocab_size == original.get_vocab_size()
    assert hf.eod == original.token_to_id("<|endoftext|>") == 0
    for text in TEXTS:
        assert hf.encode(text) == original.encode(text).ids
        assert hf.decode(hf.encode(text)) == text


def test_gpt2_is_the_transformers_class(gpt2, vocabulary):
    from transformers import GPT2Tokenizer

    original = GPT2Tokenizer(str(vocabulary("vocab.json")), str(vocabulary("merges.txt")))
    assert gpt2.vocab_size == len(original)
    assert gpt2.eod == original.eos_token_id
    for text in TEXTS:
        assert gpt2.encode(text) == original.encode(text)
        assert gpt2.decode(gpt2.encode(text)) == text


@pytest.mark.parametrize("with_eod", [True, False])
def test_spm_is_sentencepiece(sentencepiece_models, with_eod):
    import sentencepiece

    path = sentencepiece_models[with_eod]
    ours = build_tokenizer("SPMTokenizer", path)
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert ours.vocab_size == original.get_piece_size()
    assert ours.eod == (original.piece_to_id("<|endoftext|>") if with_eod else None)
    for text in TEXTS:
        assert ours.encode(text) == original.encode(text)
        assert ours.decode([*ours.encode(text), ours.vocab_size + 5]) == original.decode(original.encode(text))


def test_char_level_ids_are_the_bytes():
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    assert (tokenizer.vocab_size, tokenizer.eod) == (512, 0)
    assert tokenizer.encode("Aé\n") == [65, 0xC3, 0xA9, 10]


CHAR_LEVEL = CharLevelTokenizer()


@given(st.text())
def test_char_level_round_trip(text):
    assert CHAR_LEVEL.decode([*CHAR_LEVEL.encode(text), 511]) == text


def test_type_names_in_any_case(vocabulary, hf):
    assert build_tokenizer("hftokenizer", vocabulary("hf.json")).vocabulary_fingerprint == hf.vocabulary_fingerprint


def test_truncation_and_padding_of_the_file_are_ignored(vocabulary, tmp_path, hf):
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(vocabulary("hf.json")))
    backend.enable_truncation(3)
    backend.enable_padding(length=64, pad_id=1, pad_token="<|padding|>")
    backend.save(str(tmp_path / "cut.json"))
    cut = build_tokenizer("HFTokenizer", tmp_path / "cut.json")
    assert cut.encode(TEXTS[0]) == hf.encode(TEXTS[0])


def test_identity_is_of_the_content(vocabulary, tmp_path, hf, gpt2):
    shutil.copy(vocabulary("hf.json"), tmp_path / "elsewhere.json")
    moved = build_tokenizer("HFTokenizer", tmp_path / "elsewhere.json")
    assert moved.vocabulary_fingerprint == hf.vocabulary_fingerprint
    # the same vocabulary and merges in GPT-2's two files
    assert gpt2.vocabulary_fingerprint == hf.vocabulary_fingerprint

    changed = json.loads(vocabulary("hf.json").read_text(encoding="utf-8"))
    changed["model"]["merges"][:2] = reversed(changed["model"]["merges"][:2])
    (tmp_path / "merges.json").write_text(json.dumps(changed), encoding="utf-8")
    assert build_tokenizer("HFTokenizer", tmp_path / "merges.json").vocabulary_fingerprint != hf.vocabulary_fingerprint

    vocab = json.loads(vocabulary("vocab.json").read_text(encoding="utf-8"))
    vocab["!"], vocab['"'] = vocab['"'], vocab["!"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    swapped = build_tokenizer("GPT2BPETokenizer", tmp_path / "vocab.json", vocabulary("merges.txt"))
    assert swapped.vocabulary_fingerprint != gpt2.vocabulary_fingerprint


@pytest.mark.parametrize("name", ["hf", "gpt2", "char"])
def test_save_pretrained_loads_as_the_same_tokenizer(request, tmp_path, name):
    from transformers import AutoTokenizer

    tokenizer = CharLevelTokenizer() if name == "char" else request.getfixturevalue(name)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.eos_token == "<|endoftext|>" and loaded.eos_token_id == tokenizer.eod
    for text in TEXTS:
        if name == "char" and "<|endoftext|>" in text:
            continue  # the folder's tokenizer has a name for the end of a document, NeoX's has none
        assert set(loaded(text)) == {"input_ids", "attention_mask"}
        assert loaded(text)["input_ids"] == tokenizer.encode(text)
        assert loaded.decode(tokenizer.encode(text)) == text
    again = build_tokenizer("HFTokenizer", tmp_path / "tokenizer.json")
    assert again.vocabulary_fingerprint == tokenizer.vocabulary_fingerprint
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 knows no other


def test_no_eod(vocabulary, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer

    Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(tmp_path / "plain.json"))
    tokenizer = build_tokenizer("HFTokenizer", tmp_path / "plain.json")
    assert tokenizer.eod is None
    tokenizer.save_pretrained(tmp_path / "folder")
    assert AutoTokenizer.from_pretrained(tmp_path / "folder").eos_token is None


def test_spm_has_no_hf_folder(sentencepiece_models, tmp_path):
    with pytest.raises(InputError, match="cannot be made of a SentencePiece model"):
        build_tokenizer("SPMTokenizer", sentencepiece_models[True]).save_pretrained(tmp_path)


def test_what_cannot_be_used_is_said(vocabulary, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "merges.txt").write_text("a b c\n")
    (tmp_path / "alien.txt").write_text("#version: 0.2\nqq zz\n")
    vocab = json.loads(vocabulary("vocab.json").read_text(encoding="utf-8"))
    without_eod = {token: index for token, index in vocab.items() if token != "<|endoftext|>"}
    (tmp_path / "no_eod.json").write_text(json.dumps(without_eod))
    (tmp_path / "few.json").write_text('{"<|endoftext|>": 0, "a": 1}')
    cases = [
        (("TiktokenTokenizer", "x"), "is not supported; choose one of: HFTokenizer, SPMTokenizer, GPT2BPE"),
        (("HFTokenizer", None), r"HFTokenizer needs a vocab file \(--vocab-file\)"),
        (("GPT2BPETokenizer", vocabulary("vocab.json")), r"needs a merge file \(--merge-file\)"),
        (("HFTokenizer", tmp_path / "absent"), "vocab file .*absent does not exist"),
        (("HFTokenizer", tmp_path / "bad.json"), "bad.json is not valid JSON"),
        (("HFTokenizer", tmp_path / "other.json"), "other.json is not a tokenizer.json"),
        (("SPMTokenizer", tmp_path / "other.json"), "is not a SentencePiece model"),
        (("GPT2BPETokenizer", tmp_path / "no_eod.json", vocabulary("merges.txt")), "has no <|endoftext|>"),
        (("GPT2BPETokenizer", tmp_path / "few.json", vocabulary("merges.txt")), "lacks 255 of the 256 byte symbols"),
        (("GPT2BPETokenizer", vocabulary("vocab.json"), tmp_path / "merges.txt"), "line 1: expected two symbols"),
        (("GPT2BPETokenizer", vocabulary("vocab.json"), tmp_path / "alien.txt"), "does not fit"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message.replace("|", r"\|")) as caught:
            build_tokenizer(*arguments)
        assert "\n" not in str(caught.value)


def test_the_character_tokenizers_fingerprint_is_that_of_its_folder(tmp_path: Path) -> None:
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    tokenizer.save_pretrained(tmp_path)
    assert build_tokenizer("HFTokenizer", tmp_path / "tokenizer.json").fingerprint == tokenizer.fingerprint
