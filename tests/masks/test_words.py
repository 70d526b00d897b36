"""The word-list control finds the tokens of listed words, whatever the tokenizer cut."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.sidecar import PENALTIES, read_sidecar
from ifguide.data.text.bpe import train_bpe
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer
from ifguide.errors import InputError
from ifguide.masks import BehaviourScores, MaskOptions, WordList, build_masks
from ifguide.selection import SelectionSettings
from tests.masks.datasets import write_scores
from tests.support.folders import files

TEXTS = [
    "You idiot! An idiotic plan, said the Idiot.",
    "nothing to see here",
    "schöne Grüße, du Blödmann 😀 blödmann",
    "trash talk: utter trash, total 😀😀",
    "idiot",
    "the trash-can",
] * 4
WORDS = ["idiot", "blödmann", "utter trash", "😀"]


@pytest.fixture(scope="module", params=["HFTokenizer", "CharLevelTokenizer", "SPMTokenizer"])
def case(request, tmp_path_factory) -> tuple[Path, Tokenizer, list[Path]]:
    """A folder with corpus_text_document and scores, its tokenizer and the tokenizer's files."""
    folder = tmp_path_factory.mktemp("words")
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    vocab: list[Path] = []
    if request.param == "HFTokenizer":
        vocab = [folder / "tokenizer.json"]
        train_bpe(TEXTS, 300, vocab[0])
    elif request.param == "SPMTokenizer":
        import sentencepiece

        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS), model_prefix=str(folder / "spm"), vocab_size=340, byte_fallback=True,
            hard_vocab_limit=False, minloglevel=2, character_coverage=0.98,
        )  # fmt: skip
        vocab = [folder / "spm.model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        preprocess(
            [corpus],
            folder / "corpus",
            request.param,
            vocab[0] if vocab else None,
            options=PreprocessOptions(append_eod=request.param != "SPMTokenizer"),
            progress=False,
        )
        tokens = TokenDataset.open(folder / "corpus_text_document")
        write_scores(folder / "scores", tokens, 0)
    return folder, build_tokenizer(request.param, vocab[0] if vocab else None), vocab


def literal_places(tokenizer: Tokenizer, ids: list[int], words: list[str]) -> list[int]:
    """Each byte of the text is marked one by one; a token counts if one of its bytes is."""
    spelled = [tokenizer.token_bytes(index) for index in ids]
    owner = [place for place, piece in enumerate(spelled) for _ in piece]
    text = b"".join(spelled).decode("utf-8", "surrogateescape")
    first_byte = np.cumsum([0, *(len(letter.encode("utf-8", "surrogateescape")) for letter in text)])
    found = set()
    for word in words:
        for at in range(len(text)):
            end = at + len(word)
            around = text[max(at - 1, 0) : at] + " " + text[end : end + 1]
            if text[at:end].lower() == word and not re.search(r"\w", around):
                found |= {owner[byte] for byte in range(first_byte[at], first_byte[end])}
    return sorted(found)


def test_places_equal_the_literal_ones(case):
    folder, tokenizer, _ = case
    find = WordList(tuple(WORDS), tokenizer, {}).finder()
    tokens = TokenDataset.open(folder / "corpus_text_document")
    total = 0
    for number in range(6):
        ids = np.array(tokens.document(number))
        expected = literal_places(tokenizer, ids.tolist(), WORDS)
        assert find(ids).tolist() == expected
        total += len(expected)
        if number in (1, 5):
            assert not expected
    assert total > 6


def test_a_control_of_the_size_of_the_influence_mask(case, tmp_path):
    folder, tokenizer, _ = case
    tokens = TokenDataset.open(folder / "corpus_text_document")
    find = WordList(tuple(WORDS), tokenizer, {}).finder()
    listed = np.concatenate([find(np.array(tokens.document(i))) + tokens.starts[i] for i in range(len(TEXTS))])
    words = WordList(tuple(WORDS), tokenizer, {"inputs": [{"hash": "x"}]})
    chosen = {}
    for seed, budget in [(0, 11), (0, 11), (1, 11), (0, tokens.num_tokens)]:
        behaviour = BehaviourScores("", [folder / "scores"], SelectionSettings(0.2, 1, None, budget))
        size = build_masks([behaviour], [tmp_path / "influence"])["selected"]
        result = build_masks([behaviour], [tmp_path / "words"], MaskOptions(method="wordlist", seed=seed), words=words)
        at = np.flatnonzero(load_aligned(tmp_path / "words", tokens, PENALTIES).values).tolist()
        assert result["selected"] == len(at) == min(size, len(listed)) and set(at) <= set(listed.tolist())
        assert chosen.setdefault((seed, budget), at) == at
        short = [line for line in result["shortfall"] if "a longer --wordlist selects more" in line]
        assert [line.startswith(f"{len(at):,} tokens are selected where") for line in short] == [True] * (
            len(at) < size
        )
    assert chosen[0, 11] != chosen[1, 11]
    assert chosen[0, tokens.num_tokens] == listed.tolist()


def test_the_command_records_words_and_tokenizer(case, tmp_path, capsys):
    folder, tokenizer, vocab = case
    (tmp_path / "words.txt").write_text("# rude\nidiot\n\n  utter trash \nidiot\n", encoding="utf-8")
    arguments = ["--scores", folder / "scores", "--output", tmp_path / "m", "--threshold-quantile", "0.5"]
    arguments += ["--method", "wordlist", "--wordlist", tmp_path / "words.txt", "--tokenizer-type", tokenizer.name]
    arguments += ["--vocab-file", vocab[0]] if vocab else []
    assert main(["build-mask", *map(str, arguments)]) == 0
    sidecar = read_sidecar(tmp_path / "m")
    assert sidecar["parameters"]["words"] == 2 and sidecar["counts"]["selected"] > 0
    assert [record["path"] for record in sidecar["inputs"]] == [str(tmp_path / "words.txt")]
    assert [record["path"] for record in sidecar["tokenizer_files"]] == [str(path) for path in vocab]


def test_bad_word_lists(case, tmp_path, capsys):
    folder, tokenizer, _ = case
    for content, says in (
        (None, "does not exist"),
        (b"# nothing\n", "has no word"),
        (b"\xff", "line 1: not UTF-8"),
        (b"\x1f\x8bx", "is gzip data"),
    ):
        path = tmp_path / "words.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=f"word list .*words.txt {says}"):
            WordList.read(path, tokenizer, [])
    path.write_bytes(b"\xef\xbb\xbfidiot\r\nfool\r\n")
    assert WordList.read(path, tokenizer, []).words == ("idiot", "fool")
    path.write_text("idiot")
    arguments = ["--scores", folder / "scores", "--output", tmp_path / "m", "--method", "wordlist", "--wordlist", path]
    before = files(tmp_path)
    assert main(["build-mask", *map(str, arguments)]) == 2
    other = "CharLevelTokenizer" if tokenizer.name != "CharLevelTokenizer" else "HFTokenizer"
    train_bpe(["some other text"], 290, tmp_path / "other.json")
    before = files(tmp_path)
    arguments += ["--tokenizer-type", other, "--vocab-file", tmp_path / "other.json"]
    assert main(["build-mask", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "--wordlist needs --tokenizer-type" in lines[0] and "is not the one that the tokens of" in lines[1]
    assert len(lines) == 2 and files(tmp_path) == before
