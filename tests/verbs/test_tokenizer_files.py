"""A tokenizer's folder is read the same way by every command: same type, same tokens, same line where it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ifguide import cli
from ifguide.checkpoints.convert import TokenizerFiles
from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import preprocess
from ifguide.data.sidecar import read_sidecar, sidecar_path
from ifguide.data.text.reader import TextReader
from ifguide.data.transfer import TokenizerChoice, transfer_scores
from ifguide.errors import InputError
from tests.support.tokenizer_kinds import CORPUS, build, model_folder

KINDS = {"HFTokenizer": "llama2", "SPMTokenizer": "sentencepiece", "GPT2BPETokenizer": "gpt2-files"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a Llama folder: files of several types, and weights beside them."""
    found = tmp_path / "model"
    for name in KINDS.values():
        model_folder(build(name, tmp_path / name), found)
    (found / "model.safetensors").write_bytes(b"weights")
    return found


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """(type, prefix of data that was made with the kind of this type); its files are gone, as after a move."""
    made_in = tmp_path / "made"
    prefix = _preprocess(tmp_path / request.param, *build(KINDS[request.param], made_in).files)
    shutil.rmtree(made_in)
    return request.param, prefix


def _preprocess(output: Path, kind: str, vocab_file: Path | None, merge_file: Path | None = None) -> str:
    texts = output.with_suffix(".jsonl")
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS), encoding="utf-8")
    return preprocess([texts], output, kind, vocab_file, merge_file, progress=False)["output"]


def _scores(data: str, output: Path) -> str:
    tokens = TokenDataset.open(data)
    write_aligned(output, tokens, np.arange(tokens.num_tokens, dtype=np.float32), np.float32, {})
    return str(output)


def _forget_the_tokenizer(data: str) -> None:
    sidecar = read_sidecar(data)
    del sidecar["tokenizer"], sidecar["tokenizer_files"]
    sidecar_path(data).write_text(json.dumps(sidecar), encoding="utf-8")


def test_the_type_that_the_data_records_is_read_from_a_folder(folder, data, tmp_path, capsys):
    kind, prefix = data
    tokens = TokenDataset.open(prefix)
    write_aligned(tmp_path / "m", tokens, np.ones(tokens.num_tokens, np.uint8), np.uint8, {"encoding": "binary"})
    reader = TextReader.of_data(prefix, None, folder)
    assert reader.tokenizer.name == kind
    assert reader.fingerprint == read_sidecar(prefix)["tokenizer"]["fingerprint"]
    named = ("--vocab-file", str(folder))
    assert cli.main(["inspect", "--data", prefix, "--mask", str(tmp_path / "m"), *named, "--document", "0"]) == 0
    assert reader.decode(tokens.document(0)[:4].tolist()).strip() in capsys.readouterr().out
    assert cli.main(["verify", "--data", prefix, *named]) == 0
    scores = _scores(prefix, tmp_path / "s")
    for arguments in (["--data", prefix], []):  # the scores repeat what the data records
        words = ["--wordlist", str(_words(tmp_path)), "--output", str(tmp_path / "listed"), "--overwrite"]
        given = ["--scores", scores, *arguments, "--method", "wordlist", "--max-fraction", "0.5", *words, *named]
        assert cli.main(["build-mask", *given]) == 0
    assert {Path(one["path"]).parent for one in read_sidecar(tmp_path / "listed")["tokenizer_files"]} == {folder}


def _words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("fool\n", encoding="utf-8")
    return path


def test_the_other_form_of_a_vocabulary_is_found_in_a_folder(tmp_path, capsys):
    """`convert` writes a GPT2BPETokenizer as a tokenizer.json."""
    kind = build("gpt2-files", tmp_path / "gpt2")
    data = _preprocess(tmp_path / "a", *kind.files)
    TextReader.from_files(*kind.files).tokenizer.save_pretrained(tmp_path / "hf")
    shutil.rmtree(tmp_path / "gpt2")
    assert TextReader.of_data(data, None, tmp_path / "hf").tokenizer.name == "HFTokenizer"
    tokens = TokenDataset.open(data)
    write_aligned(tmp_path / "m", tokens, np.ones(tokens.num_tokens, np.uint8), np.uint8, {"encoding": "binary"})
    inspect = ["inspect", "--data", data, "--mask", str(tmp_path / "m"), "--vocab-file", str(tmp_path / "hf")]
    assert cli.main(inspect) == 0, capsys.readouterr().err


def test_a_folder_that_is_none_is_one_line(tmp_path, capsys):
    folder = model_folder(build("sentencepiece", tmp_path / "spm"), tmp_path / "model")
    data = _preprocess(tmp_path / "a", *build("llama2", tmp_path / "made").files)
    tokens = TokenDataset.open(data)
    write_aligned(tmp_path / "m", tokens, np.ones(tokens.num_tokens, np.uint8), np.uint8, {"encoding": "binary"})
    texts = tmp_path / "a.jsonl"
    commands = [
        ["inspect", "--data", data, "--mask", str(tmp_path / "m")],
        ["verify", "--data", data],
        ["preprocess", "--input", str(texts), "--output-prefix", str(tmp_path / "b")],
        ["transfer-scores", "--scores", _scores(data, tmp_path / "s"), "--data", data, "--to-data", data,
         "--output", str(tmp_path / "t")],
    ]  # fmt: skip
    said = f"vocab file {folder} does not exist or is not a file"
    said += "; a folder is given, and none of tokenizer.json is in it"
    for recorded in (True, False):
        if not recorded:
            _forget_the_tokenizer(data)
        with pytest.raises(InputError) as refused:
            TextReader.of_data(data, None, folder)
        assert str(refused.value) == said
        for command in commands:
            option = "--to-vocab-file" if command[0] == "transfer-scores" else "--vocab-file"
            assert cli.main([*command, option, str(folder)]) == 2
            assert said in capsys.readouterr().err


def test_scores_are_moved_between_folders(folder, tmp_path, capsys):
    """--from-tokenizer-type is kept under another name than --tokenizer-type."""
    spm = _preprocess(tmp_path / "spm", *build("sentencepiece-bytes", tmp_path / "spm_files").files)
    bytes_folder = model_folder(build("sentencepiece-bytes", tmp_path / "spm_files"), tmp_path / "with_json")
    shutil.copyfile(folder / "tokenizer.json", bytes_folder / "tokenizer.json")
    hf = _preprocess(tmp_path / "hf", *build("llama2", tmp_path / "hf_files").files)
    scores = _scores(spm, tmp_path / "s")
    for data in (spm, hf):
        _forget_the_tokenizer(data)
    common = ["transfer-scores", "--scores", scores, "--data", spm, "--to-data", hf, "--output", str(tmp_path / "t")]
    sides = ["--from-tokenizer-type", "SPMTokenizer", "--from-vocab-file", str(bytes_folder)]
    assert cli.main([*common, *sides, "--to-vocab-file", str(folder)]) == 0, capsys.readouterr().err
    recorded = [one["path"] for one in read_sidecar(tmp_path / "t")["tokenizer_files"]]
    assert recorded == [str(bytes_folder / "tokenizer.model"), str(folder / "tokenizer.json")]
    choices = TokenizerChoice("SPMTokenizer", bytes_folder), TokenizerChoice(None, folder)
    transfer_scores(scores, spm, hf, tmp_path / "called", *choices)
    assert [one["path"] for one in read_sidecar(tmp_path / "called")["tokenizer_files"]] == recorded
    assert (tmp_path / "called.bin").read_bytes() == (tmp_path / "t.bin").read_bytes()


def test_what_a_call_with_a_folder_records_is_found_again(folder, tmp_path):
    data = _preprocess(tmp_path / "a", "HFTokenizer", folder)
    (record,) = read_sidecar(data)["tokenizer_files"]
    assert record["path"] == str(folder / "tokenizer.json")
    assert TextReader.of_data(data).fingerprint == TextReader.from_files("HFTokenizer", folder).fingerprint
    keys = TokenizerFiles("HFTokenizer", str(folder)).carry(tmp_path, tmp_path / "final")
    assert keys["vocab_file"] == str(tmp_path / "final" / "tokenizer.json")
