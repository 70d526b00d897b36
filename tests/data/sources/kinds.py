"""The same forty texts, stored in every way that is read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
zstandard = pytest.importorskip("zstandard")

TEXTS = [f"{'Grüße ' * (number % 7)}number {number}" for number in range(40)]
ROWS: list[dict[str, Any]] = [
    {"text": text, "meta": {"text": f"inner {number}", "n": number}, "n": number} for number, text in enumerate(TEXTS)
]


def json_lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def write_parquet(path: Path, group: int = 7) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=group)


def write_saved(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(path, num_shards=3)


def write_splits(path: Path) -> None:
    both = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(both).save_to_disk(path)


def write_files(path: Path) -> None:
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[:25]), path / "train-0.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[25:]), path / "train-1.parquet")


def write_parts(path: Path) -> None:
    path.mkdir()
    lines = json_lines().splitlines(keepends=True)
    (path / "0.jsonl").write_bytes(b"".join(lines[:9]))
    (path / "1.json.gz").write_bytes(gzip.compress(b"".join(lines[9:30])))
    (path / "2.ndjson").write_bytes(b"".join(lines[30:]))


KINDS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "jsonl": ("a.jsonl", lambda path: path.write_bytes(json_lines())),
    "gz": ("a.jsonl.gz", lambda path: path.write_bytes(gzip.compress(json_lines()))),
    "zst": ("a.jsonl.zst", lambda path: path.write_bytes(zstandard.ZstdCompressor().compress(json_lines()))),
    "bz2": ("a.jsonl.bz2", lambda path: path.write_bytes(bz2.compress(json_lines()))),
    "xz": ("a.jsonl.xz", lambda path: path.write_bytes(lzma.compress(json_lines()))),
    "parquet": ("a.parquet", write_parquet),
    "folder": ("parts", write_parts),
    "saved": ("dataset:saved", write_saved),
    "split": ("dataset:splits#train", write_splits),
    "default split": ("dataset:splits", write_splits),
    "data files": ("dataset:files#train", write_files),
}


def make(kind: str, folder: Path) -> str:
    name, write = KINDS[kind]
    prefix, path = ("dataset:", name[8:]) if name.startswith("dataset:") else ("", name)
    write(folder / path.partition("#")[0])
    return f"{prefix}{folder}/{path}"
