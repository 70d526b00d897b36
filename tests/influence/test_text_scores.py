"""A classifier's scores of the data's text: one value a token, whatever the shards, kills and processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES, read_sidecar
from ifguide.errors import InputError
from ifguide.influence import text_scores
from ifguide.influence.text_scores import TextScoring, score_text
from ifguide.inspection.lineage import trace
from ifguide.scorers.lexicon import LexiconScorer
from tests.masks.datasets import EOD
from tests.support.datasets import write_tokens

TEXTS = ["a moron\nnice day\n\nbastard!", "you idiot. fine.", "kind words", "", "what\ta liar\nthe end"]


@pytest.fixture
def data(tmp_path) -> str:
    documents = [[*text.encode(), EOD] for text in TEXTS]
    write_tokens(tmp_path / "data", documents, tokenizer={"type": "CharLevelTokenizer", "eod": EOD})
    return str(tmp_path / "data")


def literal(cut) -> list[float]:
    """One value a character; ``cut`` gives the pieces of a text."""
    scorer, values = LexiconScorer(), []
    for text in TEXTS:
        for piece in cut(text):
            words = piece.strip()
            score = scorer.score([words])["toxicity"][0] if words else 0.0
            values += [np.float32(score)] * len(piece)
        values.append(np.float32(0))
    return values


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def found(output: str | Path, data: str) -> list[float]:
    return load_aligned(output, TokenDataset.open(data), SCORES).values.tolist()


def test_every_token_has_the_score_of_its_line(data, tmp_path, capsys):
    words = ["score-text", "--data", data, "--scorer", "lexicon", "--output", str(tmp_path / "S")]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert found(tmp_path / "S", data) == literal(lines) and max(literal(lines)) > 0.5
    assert result["finished"] and result["scores"]["max"] == max(literal(lines))
    sidecar = read_sidecar(tmp_path / "S")
    assert sidecar["scorer"]["name"] == "lexicon" and sidecar["scorer"]["threshold"] == 0.5 and sidecar["eod"] == EOD
    assert not (tmp_path / "S.parts").exists()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"]


def test_windows_and_sentences_are_cut_as_they_should_be(data, tmp_path):
    score_text(TextScoring(data, "lexicon", tmp_path / "W", "window:9"))
    assert found(tmp_path / "W", data) == literal(lambda text: [text[i : i + 9] for i in range(0, len(text), 9)])
    score_text(TextScoring(data, "lexicon", tmp_path / "T", "sentence"))
    expected = literal(lambda text: text.replace(". ", ".\0 ").replace("\n", "\n\0").replace("\t", "\t").split("\0"))
    assert found(tmp_path / "T", data) == expected


def test_word_hits_are_the_share_of_listed_tokens(data, tmp_path):
    (tmp_path / "words.txt").write_text("moron\nidiot\n")
    score_text(TextScoring(data, f"wordlist:{tmp_path / 'words.txt'}", tmp_path / "S"))
    values = found(tmp_path / "S", data)
    first = "a moron\n"
    assert values[: len(first)] == [np.float32(5 / 8)] * 8
    assert values[len(first) : len(TEXTS[0]) + 1] == [0.0] * (len(TEXTS[0]) + 1 - 8)
    sidecar = read_sidecar(tmp_path / "S")
    assert sidecar["scorer"]["threshold"] == 0.0
    # where they come from is known, by content
    nodes = {node.role: node for node in trace(tmp_path / "S").inputs}
    assert nodes["scorer"].path == str(tmp_path / "words.txt") and nodes["scorer"].status == "unchanged"
    (tmp_path / "words.txt").write_text("moron\n")
    assert {node.role: node.status for node in trace(tmp_path / "S").inputs}["scorer"] == "changed"


class Killed(Exception):
    pass


def test_a_killed_pass_goes_on_and_gives_the_same(data, tmp_path, monkeypatch):
    whole = TextScoring(data, "lexicon", tmp_path / "whole", shard_tokens=20)
    score_text(whole)
    calls = []
    real = text_scores._score_texts

    def dies(scorer, texts):
        calls.append(texts)
        if len(calls) == 2:
            raise Killed
        return real(scorer, texts)

    cut = TextScoring(data, "lexicon", tmp_path / "cut", shard_tokens=20)
    monkeypatch.setattr(text_scores, "_score_texts", dies)
    with pytest.raises(Killed):
        score_text(cut)
    assert not (tmp_path / "cut.json").exists()
    result = score_text(cut)
    assert 0 < result["resumed_tokens"] < result["tokens"] == result["resumed_tokens"] + result["scored_tokens"]
    assert (tmp_path / "cut.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()
    assert found(tmp_path / "whole", data) == literal(lines)


def test_processes_share_the_documents(data, tmp_path, monkeypatch):
    settings = TextScoring(data, "lexicon", tmp_path / "S", shard_tokens=20)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = score_text(settings)
    assert not first["finished"], "the first process puts the file together"
    monkeypatch.setenv("RANK", "0")
    result = score_text(settings)
    # nobody else was at work: the second process went on with the first one's share
    assert result["finished"] and first["scored_tokens"] + result["scored_tokens"] == result["tokens"]
    assert found(tmp_path / "S", data) == literal(lines)
    # ranges of documents, one after another
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    first = score_text(TextScoring(data, "lexicon", tmp_path / "R", shard_tokens=20, documents="0:1"))
    assert not first["finished"] and first["missing_tokens"] > 0
    assert score_text(TextScoring(data, "lexicon", tmp_path / "R", shard_tokens=20, documents="1:5"))["finished"]


def test_the_commands_again_from_elsewhere(data, tmp_path, monkeypatch):
    """The scorer's path is relative to where the command was given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("moron\n")
    assert main(["score-text", "--data", "data", "--scorer", "wordlist:words.txt", "--output", "S"]) == 0
    words = ["build-mask", "--method", "classifier", "--data", "data", "--output", "M", "--scorer"]
    assert main([*words, "wordlist:words.txt", "--max-fraction", "0.5"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name, product in (("S", "1-score-text/S.bin"), ("M", "1-build-mask/M.bin")):
        assert main(["provenance", str(tmp_path / name), "--run", "--output", f"again-{name}"]) == 0
        assert (Path(f"again-{name}") / product).read_bytes() == (tmp_path / f"{name}.bin").read_bytes()


def test_refuses_in_one_line(data, tmp_path, capsys):
    for words, message in (
        (["--scorer", "nonesuch"], "not known"),
        (["--scorer", "lexicon", "--span", "token"], "must be line, sentence or window:W"),
        (["--scorer", "lexicon", "--span", "window:0"], "window:1 or more"),
        (["--scorer", "lexicon", "--shard-tokens", "0"], "--shard-tokens 0"),
        (["--scorer", "wordlist:none.txt"], "none.txt"),
    ):
        assert main(["score-text", "--data", data, "--output", str(tmp_path / "S"), *words]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    with pytest.raises(InputError):
        score_text(TextScoring(str(tmp_path / "none"), "lexicon", tmp_path / "S"))


def test_a_mask_of_suspected_lines(data, tmp_path):
    score_text(TextScoring(data, "lexicon", tmp_path / "S"))
    words = ["build-mask", "--scores", str(tmp_path / "S"), "--output", str(tmp_path / "M"), "--span", "line"]
    assert main([*words, "--max-fraction", "0.2"]) == 0
    codes = np.fromfile(tmp_path / "M.bin", np.uint8)
    # the worst line first: the bastard, 9 of 76 tokens, then the idiot, who does not fit
    assert np.flatnonzero(codes).tolist() == list(range(18, 26))
