from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard

from ifguide import cli
from ifguide.data import preprocess as module
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import IndexedDataset, TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess, token_dtype
from ifguide.data.sidecar import file_states, read_sidecar
from ifguide.data.sources import lines, rows
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.errors import InputError, OutOfSpaceError
from ifguide.system.files import hash_file

CHAR = ("CharLevelTokenizer", None)


@pytest.fixture
def texts() -> list[str]:
    generator = np.random.default_rng(0)
    words = ["fox", "jumps", "over", "Grüße", "世界", "😀", "\n", "don't"]
    return [" ".join(generator.choice(words, generator.integers(1, 40))) for _ in range(200)]


@pytest.fixture
def corpus(tmp_path, texts) -> Path:
    return write(tmp_path / "corpus.jsonl", [json.dumps({"text": text, "meta": 1}) for text in texts])


@pytest.fixture
def prefix(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "P"


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def written(prefix: Path) -> list[str]:
    return sorted(path.name for path in prefix.parent.iterdir())


@pytest.mark.parametrize("append_eod", [False, True])
def test_equals_a_plain_loop(megatron, corpus, texts, prefix, vocabulary, append_eod):
    stats = preprocess(
        [corpus],
        prefix,
        "HFTokenizer",
        vocabulary("hf.json"),
        options=PreprocessOptions(append_eod=append_eod),
        progress=False,
    )
    tokenizer = build_tokenizer("HFTokenizer", vocabulary("hf.json"))
    expected = [tokenizer.encode(text) + [tokenizer.eod] * append_eod for text in texts]
    ours, theirs = TokenDataset.open(stats["output"]), megatron.IndexedDataset(stats["output"])
    assert stats["output"] == f"{prefix}_text_document"
    assert [ours.document(i).tolist() for i in range(ours.num_documents)] == expected
    assert [theirs[i].tolist() for i in range(len(theirs))] == expected
    assert theirs.document_indices.tolist() == list(range(len(texts) + 1))
    assert ours.dtype == theirs.index.dtype == np.uint16
    assert stats["documents"] == 200 and stats["tokens"] == sum(map(len, expected))


def test_output_does_not_depend_on_workers_batches_or_compression(corpus, prefix, vocabulary, monkeypatch, tmp_path):
    def run(name: str, path: Path, **options) -> tuple[bytes, bytes, dict]:
        stats = preprocess(
            [path, corpus],
            f"{prefix}{name}",
            "HFTokenizer",
            vocabulary("hf.json"),
            options=PreprocessOptions(**options),
            progress=False,
        )
        data = tuple(Path(stats["output"] + suffix).read_bytes() for suffix in (".bin", ".idx"))
        return *data, read_sidecar(stats["output"])["fingerprint"]

    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(corpus.read_bytes()))
    expected = run("1", corpus)
    monkeypatch.setattr(lines, "BATCH_BYTES", 500)
    assert run("small", corpus) == expected
    assert run("workers", corpus, workers=3) == expected
    assert run("gz", tmp_path / "c.jsonl.gz", workers=2) == expected
    assert run("zst", tmp_path / "c.jsonl.zst") == expected


@pytest.mark.parametrize("kind", ["jsonl", "xz", "folder", "parquet", "saved", "data files"])
def test_output_does_not_depend_on_workers_or_the_kind_of_source(tmp_path, prefix, vocabulary, monkeypatch, kind):
    from tests.data.sources import kinds

    monkeypatch.setattr(kinds.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(lines, "BATCH_BYTES", 100)
    monkeypatch.setattr(rows, "BATCH_BYTES", 100)

    def run(name, workers):
        options = PreprocessOptions(append_eod=True, workers=workers, json_keys=["text", "meta.text"])
        tokenizer = ("HFTokenizer", vocabulary("hf.json"))
        stats = preprocess([name, name], f"{prefix}{workers}", *tokenizer, options=options, progress=False)
        return [Path(stats["output"] + suffix).read_bytes() for suffix in (".bin", ".idx")]

    name = kinds.make(kind, tmp_path)
    one = run(name, 1)
    assert run(name, 2) == one and run(name, 3) == one
    (prefix.parent / "plain").mkdir()
    assert run(kinds.make("jsonl", prefix.parent / "plain"), 1) == one


def test_plain_text_and_rows_with_faults(tmp_path, prefix):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    stats = preprocess([tmp_path / "a.txt"], prefix, *CHAR, progress=False)
    assert (stats["documents"], stats["tokens"], stats["sources"]) == (1, 8, 1)
    stats = preprocess([tmp_path / "a.txt"], prefix, *CHAR, options=PreprocessOptions(format="lines"), progress=False)
    assert (stats["documents"], stats["tokens"]) == (2, 6)
    column = pa.array([b"fine", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"input {tmp_path}/a.parquet row 2: not UTF-8 .*; mend it, or use --skip"):
        preprocess([tmp_path / "a.parquet"], prefix, *CHAR, progress=False)
    options = PreprocessOptions(skip_bad_lines=True, workers=2)
    stats = preprocess([tmp_path / "a.parquet"], prefix, *CHAR, options=options, progress=False)
    assert (stats["documents"], stats["bad_lines"]) == (1, 1)


def test_sidecar_describes_the_dataset(corpus, prefix, vocabulary):
    stats = preprocess(
        [corpus],
        prefix,
        "HFTokenizer",
        vocabulary("hf.json"),
        options=PreprocessOptions(append_eod=True),
        progress=False,
    )
    sidecar = read_sidecar(stats["output"])
    tokenizer = build_tokenizer("HFTokenizer", vocabulary("hf.json"))
    assert sidecar["kind"] == "tokens"
    assert sidecar["tokenizer"] == {
        "type": "HFTokenizer",
        "identity": tokenizer.vocabulary_fingerprint,
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "eod_token": "<|endoftext|>",
        "bos": "keep",
        "prefix": [],
        "suffix": [],
    }
    assert sidecar["parameters"] == {
        "append_eod": True, "json_key": "text", "format": "auto", "skip_bad_lines": False, "bos": "keep",
        "eod_token": None,
    }  # fmt: skip
    assert sidecar["inputs"] == [{"path": str(corpus), "bytes": corpus.stat().st_size, "hash": hash_file(corpus)}]
    assert [record["path"] for record in sidecar["tokenizer_files"]] == [str(vocabulary("hf.json"))]
    # the hashes taken while writing are those of the files, and spare the next reader a pass
    dataset = IndexedDataset.open(stats["output"])
    assert sidecar["files"] == file_states(dataset.index_path, dataset.bin_path)
    assert fingerprint(dataset) == sidecar["fingerprint"]
    Path(stats["output"] + ".json").rename(prefix.parent / "aside")
    assert fingerprint(IndexedDataset.open(stats["output"])) == sidecar["fingerprint"]


def test_every_line_is_counted(tmp_path, prefix):
    lines = ['{"text": "ab"}', "", '{"text": ""}', '{"text": 5}', '{"other": "x"}', "   ", '{"text": "\u00e9"}']
    path = write(tmp_path / "mixed.jsonl", lines)
    stats = preprocess([path], prefix, *CHAR, options=PreprocessOptions(append_eod=True), progress=False)
    assert [stats[key] for key in ("documents", "tokens", "empty_documents", "not_text", "bad_lines")] == [
        2,
        6,
        1,
        2,
        0,
    ]
    dataset = TokenDataset.open(stats["output"])
    assert [dataset.document(i).tolist() for i in range(2)] == [[97, 98, 0], [0xC3, 0xA9, 0]]


def test_another_key_and_a_byte_order_mark(tmp_path, prefix):
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"body": "hi"}\r\n{"body": "ho"}')
    stats = preprocess([path], prefix, *CHAR, options=PreprocessOptions(json_keys=["body"]), progress=False)
    assert bytes(TokenDataset.open(stats["output"]).tokens.astype(np.uint8)) == b"hiho"


BAD_LINES = {
    b'{"text": "cut': "not valid JSON",
    b"[1, 2]": "expected a JSON object, got list",
    b'{"text": "\xff"}': r"not UTF-8 \(byte 10\)",
    b'{"text": "\\ud800"}': "lone surrogate",
    b'{"n": ' + b"9" * 5000 + b"}": "integer string conversion",
    b"[" * 100_000: "nested too deeply",
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_lines_stop_or_are_counted(tmp_path, prefix, monkeypatch, workers, line):
    monkeypatch.setattr(lines, "BATCH_BYTES", 20)
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n' + line + b'\n{"text": "b"}\n' + b"also bad\n")
    with pytest.raises(
        InputError, match=rf"input {path} line 3: .*{BAD_LINES[line]}.*; mend it, or use --skip-bad-lines"
    ):
        preprocess([path], prefix, *CHAR, options=PreprocessOptions(workers=workers), progress=False)
    assert written(prefix) == []
    stats = preprocess(
        [path], prefix, *CHAR, options=PreprocessOptions(workers=workers, skip_bad_lines=True), progress=False
    )
    assert (stats["documents"], stats["bad_lines"]) == (2, 2)


def test_nothing_left_to_write(tmp_path, prefix):
    path = write(tmp_path / "other.jsonl", ['{"body": "x"}', '{"text": ""}'])
    with pytest.raises(InputError, match=r"no document in .*: 1 lines or rows without a string .* 'text'.* 1 empty"):
        preprocess([path], prefix, *CHAR, progress=False)
    assert written(prefix) == []


class _FailingBuilder:
    """Stands for megatron-core's builder on a disk that fills up."""

    def __init__(self, path: Path, error: BaseException):
        self.data_file = path.open("wb")
        self._error = error

    def add_document(self, ids, lengths):
        raise self._error


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_on_the_way_leaves_the_old_dataset(corpus, prefix, monkeypatch, workers):
    stats = preprocess([corpus], prefix, *CHAR, progress=False)
    names = written(prefix)
    before = [(prefix.parent / name).read_bytes() for name in names]
    for error, expected in (
        (OSError(errno.ENOSPC, "No space left on device"), OutOfSpaceError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        monkeypatch.setattr(module, "dataset_builder", lambda path, dtype, error=error: _FailingBuilder(path, error))
        with pytest.raises(expected):
            preprocess([corpus, corpus], prefix, *CHAR, options=PreprocessOptions(workers=workers), progress=False)
        assert written(prefix) == names
        assert [(prefix.parent / name).read_bytes() for name in names] == before
    assert TokenDataset.open(stats["output"]).num_documents == 200


def test_a_killed_worker_is_reported(corpus, prefix, monkeypatch):
    monkeypatch.setattr(module.Encoder, "__call__", lambda self, batch: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InputError, match="a worker process was killed"):
        preprocess([corpus], prefix, *CHAR, options=PreprocessOptions(workers=2), progress=False)
    assert written(prefix) == []


@pytest.mark.parametrize(("vocab_size", "dtype"), [(512, np.uint16), (65499, np.uint16), (65500, np.int32)])
def test_token_dtype_is_megatrons(megatron, vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype == megatron.DType.optimal_dtype(vocab_size)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path, prefix, corpus):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"<|endoftext|>": 0, "b": 70000}, unk_token="b")).save(str(tmp_path / "gap.json"))
    with pytest.raises(InputError, match="id 70000 beyond its vocabulary of 2"):
        preprocess([corpus], prefix, "HFTokenizer", tmp_path / "gap.json", progress=False)


def test_command(corpus, prefix, vocabulary, capsys):
    arguments = ["--input", str(corpus), "--output-prefix", str(prefix), "--append-eod"]
    gpt2 = ["--tokenizer-type", "GPT2BPETokenizer", "--vocab-file", str(vocabulary("vocab.json"))]
    gpt2 += ["--merge-file", str(vocabulary("merges.txt"))]
    assert cli.main(["preprocess", *arguments, *gpt2, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["documents"] == 200 and printed["output"] == f"{prefix}_text_document"
    assert cli.main(["preprocess", *arguments, *gpt2, "--overwrite"]) == 0
    captured = capsys.readouterr()
    size = f"200 documents, {printed['tokens']:,} uint16 tokens"
    assert captured.out.startswith(f"wrote {prefix}_text_document: {size}\n")
    assert "preprocess: 100%" in captured.err and "bytes/s" in captured.err
    assert written(prefix) == [f"P_text_document.{suffix}" for suffix in ("bin", "idx", "json")]


COMMAND_FAULTS = {
    "missing input": (["--input", "absent.jsonl"], "input absent.jsonl does not exist"),
    "missing vocabulary": (["--tokenizer-type", "HFTokenizer"], "HFTokenizer needs a vocab file"),
    "unknown tokenizer": (["--tokenizer-type", "Nonsense"], "choose one of: HFTokenizer"),
    "no workers": (["--workers", "0"], "--workers must be at least 1"),
    "missing folder": (["--output-prefix", "no/such/P"], "folder no/such does not exist"),
    "other key": (["--jsonl-keys", "body"], "no document in"),
}


@pytest.mark.parametrize("fault", COMMAND_FAULTS)
def test_command_answers_bad_input_with_one_line(corpus, prefix, capsys, monkeypatch, fault):
    monkeypatch.chdir(prefix.parent)
    good = ["--input", str(corpus), "--output-prefix", str(prefix), "--tokenizer-type", "CharLevelTokenizer"]
    changed, message = COMMAND_FAULTS[fault]
    assert cli.main(["preprocess", *good, *changed]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("ifguide preprocess: ") and message in line
    assert written(prefix) == []


def test_a_tokenizer_is_named_by_its_folder_too(corpus, prefix, vocabulary, tmp_path, capsys):
    """And HFTokenizer is what is meant where no type is named."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copyfile(vocabulary("hf.json"), folder / "tokenizer.json")
    (folder / "weights.bin").write_bytes(b"not read")
    common = ["preprocess", "--input", str(corpus), "--output-prefix"]
    assert cli.main([*common, f"{prefix}1", "--vocab-file", str(folder)]) == 0
    (folder / "weights.bin").write_bytes(b"of no matter")
    assert cli.main([*common, f"{prefix}1", "--vocab-file", str(folder)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    file = ["--vocab-file", str(vocabulary("hf.json")), "--tokenizer-type", "HFTokenizer"]
    assert cli.main([*common, f"{prefix}2", *file]) == 0
    one, two = (Path(f"{prefix}{number}_text_document.bin").read_bytes() for number in (1, 2))
    assert one == two
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(vocabulary(name), folder / name)
    gpt2 = ["--tokenizer-type", "GPT2BPETokenizer", "--vocab-file", str(folder)]
    assert cli.main([*common, f"{prefix}3", *gpt2]) == 0
    recorded = read_sidecar(f"{prefix}3_text_document")["tokenizer_files"]
    assert [Path(record["path"]).name for record in recorded] == ["vocab.json", "merges.txt"]
    capsys.readouterr()
    assert cli.main([*common, f"{prefix}4", "--tokenizer-type", "SPMTokenizer", "--vocab-file", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"vocab file {folder} does not exist or is not a file" in line and "none of tokenizer.model" in line
    assert cli.main(["verify", "--data", f"{prefix}1_text_document", "--vocab-file", str(folder)]) == 0


def test_what_an_earlier_version_made_is_known_again(corpus, prefix, capsys):
    """It recorded one key as a word."""
    command = ["preprocess", "--input", str(corpus), "--output-prefix", str(prefix), "--jsonl-keys", "text"]
    command += ["--tokenizer-type", "CharLevelTokenizer"]
    assert cli.main(command) == 0
    record = read_sidecar(f"{prefix}_text_document")
    assert record["request"]["settings"]["--jsonl-keys"] == "text" == record["parameters"]["json_key"]
    del record["request"]["settings"]["--format"]
    Path(f"{prefix}_text_document.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_eod_must_exist(tmp_path, prefix, corpus, sentencepiece_models):
    with pytest.raises(InputError, match=r"--append-eod needs <\|endoftext\|>"):
        preprocess(
            [corpus],
            prefix,
            "SPMTokenizer",
            sentencepiece_models[False],
            options=PreprocessOptions(append_eod=True),
            progress=False,
        )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists child processes through /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    text = tmp_path / "large.jsonl"
    text.write_text((json.dumps({"text": "some words " * 500}) + "\n") * 20_000)
    command = ["preprocess", "--input", text, "--output-prefix", tmp_path / "out"]
    command += ["--tokenizer-type", "CharLevelTokenizer", "--workers", "2"]
    parent = subprocess.Popen([sys.executable, "-m", "ifguide.cli", *map(str, command)], stderr=subprocess.DEVNULL)
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    workers: list[str] = []
    while len(workers) < 2:
        assert parent.poll() is None, "it ended before it was killed"
        time.sleep(0.05)
        workers = listed.read_text().split()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(_is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.1)


def _is_alive(process: str) -> bool:
    """Whether it runs; one that ended and that nobody waits for stays in the list as Z."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
