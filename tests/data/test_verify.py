"""`ifguide verify` as a command: exit codes, what it prints, what it needs to know, what it costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ifguide import cli
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.fingerprint import fingerprint, known_fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.data.verify import verify
from ifguide.errors import ConfigError
from tests.data.corruptible import LENGTHS, Project
from tests.data.corruptions import ALL
from tests.data.corruptions_of_content import flip, set_tokens
from tests.data.test_faults import train
from tests.engine.tiny import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project")


@pytest.fixture
def command(project: Project, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Run `ifguide verify` on the project: (exit code, lines of stdout, lines of stderr without the progress)."""

    def run(*options: str) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = cli.main(["verify", "--data", project.data, *options])
        shown = capsys.readouterr()
        errors = [line for line in shown.err.splitlines() if not line.startswith("verify:")]
        return code, shown.out.splitlines(), errors

    return run


def test_sound(project, command):
    code, lines, errors = command("--mask", project.mask, "--scores", project.scores)
    assert code == 0 and errors == []
    assert lines[:3] == [
        f"{project.data}: tokens, 6 documents, 161 int32 values",
        f"{project.mask}: mask, 6 documents, 161 uint8 values",
        f"{project.scores}: scores, 6 documents, 161 float32 values",
    ]
    assert lines[3].startswith("sound (1.45k B in ")


def test_faults_are_a_line_each(project, command):
    ALL["token_ids_are_beyond_the_vocabulary"].damage(project)
    ALL["scores_are_nan"].damage(project)
    code, lines, errors = command("--scores", project.scores)
    assert code == 1 and errors == []
    faults = [line for line in lines if line.startswith("fault: ")]
    assert len(faults) == 2 and lines[-1].startswith("2 faults (")
    assert faults[0].startswith(f"fault: {project.data}.bin: 3 token ids outside the vocabulary of 512: 512 at")


def test_json(project, command):
    code, lines, _ = command("--mask", project.mask, "--json")
    (line,) = lines
    result = json.loads(line)
    assert code == 0 and result["sound"] is True and result["faults"] == []
    assert result["datasets"][project.mask] == {
        "kind": "mask", "dtype": "uint8", "documents": 6, "tokens": 161, "bytes": 161
    }  # fmt: skip
    ALL["mask_code_is_two"].damage(project)
    code, lines, _ = command("--mask", project.mask, "--json")
    (fault,) = json.loads(lines[0])["faults"]
    assert code == 1 and fault["name"] == "code" and fault["count"] == 1


def test_arguments_that_name_nothing_are_told_at_once(project, command):
    code, lines, errors = command("--mask", "nowhere", "--scores", project.scores + ".bin", "--vocab-size", "0")
    assert code == 2 and lines == [] and len(errors) == 3
    assert "no dataset nowhere: neither nowhere.idx nor nowhere.bin exists" in errors[0]
    assert f"did you mean the prefix {project.scores}?" in errors[1]
    assert "--vocab-size must be at least 1" in errors[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vocab-size", "9", "--tokenizer-type", "CharLevelTokenizer"], "exclude each other"),
        (["--merge-file", "x.txt"], "needs --tokenizer-type"),
        (["--vocab-file", "x.json"], "vocab file x.json does not exist"),
        (["--tokenizer-type", "Unheard"], "is not supported; choose one of"),
        (["--tokenizer-type", "HFTokenizer"], "HFTokenizer needs a vocab file"),
    ],
)
def test_bad_options(command, options, message):
    code, lines, errors = command(*options)
    assert code == 2 and lines == [] and len(errors) == 1 and message in errors[0]


def test_one_file_of_two_is_a_fault_and_no_bad_argument(project):
    Path(project.data + ".idx").unlink()
    assert [fault.name for fault in verify(project.data).faults] == ["missing"]
    Path(project.data + ".bin").unlink()
    with pytest.raises(ConfigError, match="neither"):
        verify(project.data)


def test_where_the_vocabulary_comes_from(project, command):
    set_tokens(project, {0: 300})
    assert command()[0] == 0
    assert command("--vocab-size", "300")[0] == 1
    assert command("--vocab-size", "301")[0] == 0
    Path(project.data + ".json").unlink()
    code, lines, _ = command()
    assert code == 0 and "nothing says how large the vocabulary is" in lines[1]
    set_tokens_without_sidecar(project, -7)
    code, lines, _ = command()
    assert code == 1 and "1 token ids below 0: -7 at document 0, token 0" in lines[2]


def set_tokens_without_sidecar(project: Project, value: int) -> None:
    tokens = np.memmap(project.data + ".bin", np.int32, "r+")
    tokens[0] = value
    tokens.flush()


def test_the_tokenizer_given_is_compared(project, command):
    assert command("--tokenizer-type", "CharLevelTokenizer")[0] == 0
    project.edit(project.data, tokenizer={"identity": "e" * 64, "vocab_size": 512})
    code, lines, _ = command("--tokenizer-type", "charleveltokenizer")
    assert code == 1 and "made with another tokenizer (eeeeeeeeeeee != " in lines[1]


def test_warnings_are_no_faults(project):
    lengths = (*LENGTHS[:-1], 0, LENGTHS[-1])
    project.write(project.data, np.arange(sum(LENGTHS)), np.int32, lengths)
    project.seal(project.data)
    tokens = TokenDataset.open(project.data)
    write_aligned(project.mask, tokens, np.zeros(tokens.num_tokens, np.uint8), np.uint8, {"encoding": "binary"})
    cache = project.data + "_train_0_indexmap_10ns_16sl_1s_packedpi_ac_doc_idx.npy"
    np.save(cache, np.arange(5, dtype=np.int32))
    findings = verify(project.data, [project.mask])
    assert findings.faults == []
    assert [warning.name for warning in findings.warnings] == ["empty-document", "index-cache", "empty-mask"]
    assert Path(cache).name in findings.warnings[1].message and "allow_pickle" in findings.warnings[1].message


def test_the_caches_of_another_dataset_are_not_named(project):
    np.save(project.data + "2_train_0_indexmap_10ns_doc_idx.npy", np.arange(3))
    assert verify(project.data).warnings == []


def test_shallow_finds_what_the_loaders_would_and_deep_more(project):
    status = os.stat(project.mask + ".bin")  # noqa: PTH116
    flip(project.mask + ".bin")
    assert [fault.name for fault in verify(project.data, [project.mask]).faults] == ["content"]
    os.utime(project.mask + ".bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verify(project.data, [project.mask]).faults == []
    assert [fault.name for fault in verify(project.data, [project.mask], deep=True).faults] == ["content"]


def test_a_hash_taken_once_is_kept(project):
    Path(project.data + ".json").unlink()
    tokens = TokenDataset.open(project.data)
    assert known_fingerprint(tokens) is None
    assert verify(project.data).faults == []
    assert known_fingerprint(tokens) is None, "nothing asked for it"
    assert verify(project.data, [project.mask]).faults == []
    assert known_fingerprint(tokens) == fingerprint(tokens)


def test_memory_is_bounded(tmp_path, project):
    values = np.zeros(8_000_000, np.int32)
    project.write(project.data, values, np.int32, (1_000_000,) * 8)
    project.seal(project.data)
    tracemalloc.start()
    try:
        assert verify(project.data, deep=True).faults == []
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_may_not_be_read_is_a_fault(project, monkeypatch):
    def refuse(path, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "memmap", refuse)
    (fault,) = verify(project.data).faults
    assert fault.name == "unreadable" and f"{project.data}.bin cannot be read: Permission denied" in fault.message


@pytest.mark.parametrize(
    ("script", "options", "key"),
    [
        ("verify", ["--gigabytes", "0.001", "--repeats", "1"], "deep"),
        ("fuzz_index", ["--executions", "50"], "findings"),
    ],
)
def test_the_benchmarks_run(script, options, key):
    command = [sys.executable, f"benchmarks/{script}.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert key in json.loads(done.stdout)


@pytest.fixture
def read_only(project: Project, tmp_path: Path) -> Iterator[Project]:
    """The project on a file system that is mounted read-only (root may write to read-only folders)."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if not shutil.which("mount"):
        pytest.skip("there is no mount command")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        shutil.copytree(project.folder, folder / "project")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield Project(folder / "project")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("cache", ["elsewhere", "read-only"])
@pytest.mark.parametrize("touched", [False, True])
def test_a_read_only_file_system_is_read(read_only, tmp_path, monkeypatch, cache, touched):
    """Also where nothing is known by the files' times, and where no cache can be written either."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only.folder if cache == "read-only" else tmp_path / "cache"))
    if touched:
        monkeypatch.setattr("ifguide.data.fingerprint.file_states", lambda *paths: {"idx": [0, 0], "bin": [0, 0]})
    with pytest.raises(OSError):
        Path(read_only.data + ".new").touch()
    tokens = TokenDataset.open(read_only.data)
    load_aligned(read_only.mask, tokens, "penalties")
    assert verify(read_only.data, [read_only.mask], [read_only.scores], deep=True).faults == []
    train(read_only)
