from __future__ import annotations

from pathlib import Path

import pytest

from ifguide.data.sources.names import (
    absolute_name,
    find_sources,
    input_hash,
    input_record,
    local_files,
    parse_dataset,
)
from ifguide.errors import InputError
from ifguide.system.files import hash_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a/z.txt.gz", "a/B.parquet", "a.jsonl.zst", "README.md", ".hidden.jsonl", ".cache/c.jsonl"):
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "given" / name).write_bytes(b"x")
    return tmp_path / "given"


def names(folder: Path, *given: str, form: str = "auto") -> list[tuple[str, str]]:
    found = find_sources([f"{folder}/{name}" if name else str(folder) for name in given], form)
    return [(str(Path(one.name).relative_to(folder)), one.kind) for one in found]


def test_a_folder_is_what_is_read_in_it_sorted(folder: Path) -> None:
    known = [("a/B.parquet", "parquet"), ("a/z.txt.gz", "text"), ("a.jsonl.zst", "jsonl"), ("b.jsonl", "jsonl")]
    assert names(folder, "") == known
    every = [("README.md", "lines"), ("a/B.parquet", "lines"), ("a/z.txt.gz", "lines"), ("a.jsonl.zst", "lines"),
             ("b.jsonl", "lines")]  # fmt: skip
    assert names(folder, "", form="lines") == every


def test_patterns_are_sorted_and_go_into_folders(folder: Path) -> None:
    assert names(folder, "*.jsonl*") == [("a.jsonl.zst", "jsonl"), ("b.jsonl", "jsonl")]
    assert [name for name, _ in names(folder, "**/*.*", "b.jsonl")] == [
        "README.md", "a/B.parquet", "a/z.txt.gz", "a.jsonl.zst", "b.jsonl", "b.jsonl",
    ]  # fmt: skip
    (folder / "a[1].jsonl").write_bytes(b"x")
    assert names(folder, "a[1].jsonl") == [("a[1].jsonl", "jsonl")]


def test_what_names_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    for name, says in (
        ("absent.jsonl", "does not exist or is not a file"),
        ("*.csv", "no file fits this pattern"),
        (".cache/none", "does not exist or is not a file"),
    ):
        with pytest.raises(InputError, match=says) as refused:
            find_sources([f"{folder}/{name}"])
        assert str(refused.value).startswith(f"input {folder}/{name}")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.csv").touch()
    with pytest.raises(InputError, match=r"no file below it is read \(1 of other kinds\)"):
        find_sources([tmp_path / "bare"])
    (tmp_path / "bare" / "state.json").touch()
    with pytest.raises(InputError, match=f"saved; write dataset:{tmp_path}/bare"):
        find_sources([tmp_path / "bare"])
    with pytest.raises(InputError, match=r"--format csv: must be one of auto, jsonl"):
        find_sources([folder], "csv")


def test_names_of_data_sets(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    found = [parse_dataset(f"dataset:{name}") for name in (f"{tmp_path}/a:b#test", "org/name:en#train", "org/name")]
    assert [(one.path, one.config, one.split) for one in found] == [
        (f"{tmp_path}/a:b", None, "test"), ("org/name", "en", "train"), ("org/name", None, None),
    ]  # fmt: skip
    for name, says in (("dataset:#train", "names no data set"), (f"dataset:{tmp_path}/no#a", "does not exist")):
        with pytest.raises(InputError, match=says):
            parse_dataset(name)


def test_records_of_what_was_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, both = folder / "b.jsonl", f"{folder}/*.jsonl*"
    assert input_record(one) == {"path": str(one), "bytes": 1, "hash": hash_file(one)}
    assert input_record(both)["bytes"] == 2 and input_hash(both) not in (None, input_hash(one))
    before = input_hash(both)
    (folder / "b.jsonl").write_bytes(b"other")
    assert input_hash(both) != before
    assert local_files(f"{folder}/absent") == [] and local_files("dataset:org/name") is None
    assert input_hash("dataset:org/name") is None
    monkeypatch.chdir(tmp_path)
    assert absolute_name("given/../given/b.jsonl") == str(one)
    assert absolute_name("dataset:given#train") == f"dataset:{folder}#train"
    assert absolute_name("dataset:org/name#train", tmp_path) == "dataset:org/name#train"
    assert len(local_files("dataset:given#train") or []) == 5
