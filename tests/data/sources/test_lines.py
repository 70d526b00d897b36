from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pytest
import zstandard

from ifguide.data.sources import compression, lines
from ifguide.data.sources.names import find_sources
from ifguide.data.sources.reading import read_batches, total_size
from ifguide.data.sources.records import Batch
from ifguide.errors import InputError

CONTENT = b"first\n\nthird is longer\r\n" + b"x" * 1000 + b"\nlast without a line end"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


# one stream, and two that follow each other as `cat a.gz b.gz` makes them
STORED = {
    "plain.jsonl": CONTENT,
    "one.jsonl.gz": gzip.compress(CONTENT, mtime=0),
    "two.jsonl.gz": gzip.compress(CONTENT[:11], mtime=0) + b"\0" * 40 + gzip.compress(CONTENT[11:]),
    "one.jsonl.zst": zstd(CONTENT),
    "two.jsonl.zst": zstd(CONTENT[:11]) + zstd(CONTENT[11:]),
    "one.jsonl.bz2": bz2.compress(CONTENT),
    "two.jsonl.bz2": bz2.compress(CONTENT[:11]) + bz2.compress(CONTENT[11:]),
    "one.jsonl.xz": lzma.compress(CONTENT),
    "two.jsonl.xz": lzma.compress(CONTENT[:11]) + b"\0" * 8 + lzma.compress(CONTENT[11:]),
}


def batches_of(*paths, form="auto") -> list[Batch]:
    return list(read_batches(find_sources(paths, form), ["text"]))


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize(("read", "batch"), [(1, 1), (7, 30), (1 << 18, 1 << 19)])
def test_lines_do_not_depend_on_how_they_are_stored_or_read(tmp_path, monkeypatch, name, read, batch):
    monkeypatch.setattr(compression, "READ_BYTES", read)
    monkeypatch.setattr(lines, "BATCH_BYTES", batch)
    path = tmp_path / name
    path.write_bytes(STORED[name])
    batches = batches_of(path, path)
    assert [line for batch in batches for line in batch.items] == CONTENT.split(b"\n") * 2
    numbers = [batch.first + i for batch in batches for i in range(len(batch.items))]
    assert numbers == [1, 2, 3, 4, 5] * 2
    positions = [batch.position for batch in batches]
    assert positions == sorted(positions) and positions[-1] == total_size(find_sources([path, path]))


@pytest.mark.parametrize("name", ["one.jsonl.gz", "one.jsonl.zst", "one.jsonl.bz2", "one.jsonl.xz"])
@pytest.mark.parametrize(
    ("damage", "message"), [("cut", "is truncated"), ("noise", "is not a whole"), ("empty", "truncated")]
)
def test_damaged_archives_are_not_taken_for_short_ones(tmp_path, name, damage, message):
    data = STORED[name]
    path = tmp_path / name
    path.write_bytes({"cut": data[:-3], "noise": b"noise" + data, "empty": b""}[damage])
    with pytest.raises(InputError, match=message) as caught:
        batches_of(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", gzip.compress(CONTENT, mtime=0), "is gzip data, not text; give it a name that ends in .gz"),
        ("a.jsonl.GZ", gzip.compress(CONTENT, mtime=0), "is gzip data, not text; give it a name that ends in .gz"),
        ("a.jsonl.zst", gzip.compress(CONTENT, mtime=0), "is gzip data, not text; give it a name that ends in .gz"),
        ("a.jsonl.gz", zstd(CONTENT), "is zstandard data, not text; give it a name that ends in .zst"),
        ("a.jsonl", zstd(CONTENT), "is zstandard data, not text; give it a name that ends in .zst"),
        ("a.jsonl", bz2.compress(CONTENT), "is bzip2 data, not text; give it a name that ends in .bz2"),
        ("a.jsonl.gz", bz2.compress(CONTENT), "is bzip2 data, not text; give it a name that ends in .bz2"),
        ("a.txt", lzma.compress(CONTENT), "is xz data, not text; give it a name that ends in .xz"),
        ("a.jsonl", b"PAR1\x15\x04", "is a Parquet file, not text; give it a name that ends in .parquet"),
        ("a.jsonl.xz", b'{"text": "a"}\n', "is plain text, not xz data; take .xz off its name"),
        ("a.jsonl.gz", b'{"text": "a"}\n', "is plain text, not gzip data; take .gz off its name"),
        ("a.jsonl.zst", b'\xef\xbb\xbf{"text": "a"}', "is plain text, not zstandard data; take .zst off its name"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "is UTF-16 text, not text; save it as UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_files_that_are_not_what_their_name_says(tmp_path, name, data, says):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"^input {path} {says}"):
        batches_of(path)


def texts_of(path, form="auto", keys=("text",)):
    return [
        (place.unit, place.number, None if text is None else str(text))
        for batch in read_batches(find_sources([path], form), keys)
        for place, text in batch.texts(keys)
    ]


def test_plain_text_is_a_document_a_file_or_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n {x}\n")
    assert texts_of(path, keys=["body"]) == [("line", 1, "one\ntwo\n\n {x}\n")]
    assert texts_of(path, "lines") == [("line", 1, "one"), ("line", 2, "two"), ("line", 4, " {x}")]
    packed = tmp_path / "a.txt.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    assert texts_of(packed) == texts_of(path) and texts_of(packed, "lines") == texts_of(path, "lines")
    (tmp_path / "empty.txt").touch()
    assert texts_of(tmp_path / "empty.txt") == [("line", 1, "")]


def test_json_lines_that_are_named_as_plain_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(json.dumps({"text": "hi"}) + "\n")
    assert texts_of(path) == [("line", 1, "hi")]
    assert texts_of(path, "text") == [("line", 1, '{"text": "hi"}\n')]


@pytest.mark.parametrize("form", ["text", "lines"])
def test_plain_text_that_is_not_utf8_is_named_by_its_line(tmp_path, form):
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nnot \xff fine\nfine\n")
    found = texts_of(path, form)
    assert ("line", 2, "not UTF-8 (byte 4); save the file as UTF-8") in found
    assert len(found) == (1 if form == "text" else 3)


def test_a_document_beyond_all_measure_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("some words\n" * 10)
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    with pytest.raises(InputError, match=f"input {path} would be one document of more than .*--format lines"):
        batches_of(path)
    assert len(texts_of(path, "lines")) == 10


def test_a_long_line_is_not_copied_again_for_every_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "READ_BYTES", 3)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 1000 + b"\ny\n\nz")
    assert [batch.items for batch in batches_of(path)] == [[b"x" * 1000, b"y", b"", b"z"]]
