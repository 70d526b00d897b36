"""Every kind of source gives the same texts; what goes wrong is named by file and line or row."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ifguide.data.sources import hugging_face, parquet, rows
from ifguide.data.sources.names import find_sources
from ifguide.data.sources.reading import check_sources, read_batches, read_rows, total_size
from ifguide.data.sources.records import text_of
from ifguide.errors import InputError
from ifguide.system.text_files import LineFault
from tests.data.sources.kinds import KINDS, ROWS, TEXTS, datasets, make, pa, pq


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    hugging_face._load.cache_clear()


def texts(name: str, *keys: str) -> list[Any]:
    sources = find_sources([name])
    check_sources(sources, keys)
    return [text for batch in read_batches(sources, keys) for _, text in batch.texts(keys)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(rows, "READ_ROWS", 4)
    monkeypatch.setattr(parquet, "READ_ROWS", 4)
    monkeypatch.setattr(hugging_face, "READ_ROWS", 4)
    monkeypatch.setattr(rows, "BATCH_BYTES", 100)
    name = make(kind, tmp_path)
    assert texts(name, "text") == TEXTS
    assert texts(name, "meta.text") == [f"inner {number}" for number in range(40)]
    joined = [f"{text}\n\ninner {number}" for number, text in enumerate(TEXTS)]
    assert texts(name, "text", "meta.text", "absent", "n") == joined
    sources = find_sources([name])
    assert [row for _, row in read_rows(name)] == ROWS
    positions = [batch.position for batch in read_batches(sources, ["text"])]
    assert positions == sorted(positions) and (len(positions) > 5 or KINDS[kind][0].startswith(("a.jsonl", "parts")))
    assert total_size(sources) == (None if kind == "data files" else positions[-1])


@pytest.mark.parametrize("kind", ["parquet", "saved", "data files"])
def test_rows_are_numbered_from_one_through_all_groups(tmp_path: Path, kind: str) -> None:
    places = [place for place, _ in read_rows(make(kind, tmp_path))]
    assert [place.number for place in places] == list(range(1, 41)) and {place.unit for place in places} == {"row"}


@pytest.mark.parametrize(
    ("row", "keys", "text"),
    [
        ({"text": "a"}, ["text"], "a"),
        ({"a": {"b": {"c": "deep"}}}, ["a.b.c"], "deep"),
        ({"a.b": "flat", "a": {"b": "inner"}}, ["a.b"], "flat"),
        ({"a": "no object"}, ["a.b"], None),
        ({"a": ["x"]}, ["a", "a.0"], None),
        ({"title": "T", "body": ""}, ["title", "body"], "T\n\n"),
        ({"body": "B"}, ["title", "body"], "B"),
        ({"body": "B", "title": "T"}, ["title", "body"], "T\n\nB"),
        ({"text": 5}, ["text"], None),
        ({}, ["text"], None),
    ],
)
def test_keys(row: dict[str, Any], keys: list[str], text: str | None) -> None:
    assert text_of(row, keys) == text


@pytest.mark.parametrize("kind", ["parquet", "saved", "data files"])
def test_a_column_that_is_not_there_is_told_before_the_work(tmp_path: Path, kind: str) -> None:
    name = make(kind, tmp_path)
    with pytest.raises(InputError, match=r"has no column 'body' or 'x.y' \(--jsonl-keys\); it has text, meta, n"):
        check_sources(find_sources([name]), ["body", "x.y"])


def test_text_of_a_table_that_is_not_utf8_is_a_fault_of_its_row(tmp_path: Path) -> None:
    column = pa.array([b"fine", b"\xff\xfe", b"fine too"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    (batch,) = read_batches(find_sources([tmp_path / "a.parquet"]), ["text"])
    found = list(batch.texts(["text"]))
    assert [text for _, text in found if not isinstance(text, LineFault)] == ["fine", "fine too"]
    (place, fault) = found[1]
    assert place.message("input", fault).startswith(f"input {tmp_path}/a.parquet row 2: not UTF-8 (byte 0")
    with pytest.raises(InputError, match=r"prompts .*a\.parquet row 2: not UTF-8"):
        list(read_rows(tmp_path / "a.parquet", "prompts"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[: len(data) // 2], "is not a whole Parquet file"),
        (lambda data: data[:5] + bytes(200) + data[205:], "cannot be read: .*; copy the file again"),
        (lambda data: b"text", "is no Parquet file"),
        (lambda data: gzip.compress(data), "is gzip data"),
    ],
)
def test_a_damaged_parquet_file(tmp_path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"a text {number}" for number in range(100)]}), path, compression="none")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=says) as refused:
        texts(str(path), "text")
    assert str(path) in str(refused.value)


def test_splits(tmp_path: Path) -> None:
    name = make("split", tmp_path).removesuffix("#train")
    assert texts(f"{name}#test", "text") == TEXTS[:1]
    with pytest.raises(InputError, match="has no split 'valid'; write #SPLIT with one of train, test"):
        texts(f"{name}#valid", "text")
    both = {"a": datasets.Dataset.from_list(ROWS[:1]), "b": datasets.Dataset.from_list(ROWS[:2])}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "other")
    with pytest.raises(InputError, match="several splits and none is 'train'; write #SPLIT with one of a, b"):
        texts(f"dataset:{tmp_path}/other", "text")
    with pytest.raises(InputError, match="has no splits; leave out #train"):
        texts(f"{make('saved', tmp_path)}#train", "text")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError) as refused:
        texts("dataset:org/name:en#train", "text")
    assert str(refused.value) == (
        "input dataset:org/name:en#train: org/name is no folder here and cannot be read from the hub (Couldn't reach "
        "the hub); download it where there is a network, and name its folder: dataset:FOLDER#SPLIT"
    )


@pytest.mark.parametrize(
    ("kind", "module", "says"),
    [
        ("parquet", "pyarrow.parquet", "needs the package pyarrow; install with: .*, or write its rows as JSON lines"),
        ("saved", "datasets", "needs the package datasets; install with: "),
        ("zst", "zstandard", "needs the package zstandard; install with: .*, or decompress the file"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, says: str
) -> None:
    name = make(kind, tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=says) as refused:
        texts(name, "text")
    assert str(refused.value).startswith(f"input {name} needs")


def test_rows_of_several_files_are_named_by_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"n": 2}\n\nnonsense\n')
    with pytest.raises(InputError, match=f"^prompts {tmp_path}/b.jsonl line 3: not valid JSON"):
        list(read_rows(f"{tmp_path}/*.jsonl", "prompts"))
