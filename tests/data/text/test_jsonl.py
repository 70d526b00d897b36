from __future__ import annotations

import bz2
import gzip

import pytest
import zstandard

from ifguide.data.text import jsonl
from ifguide.data.text.jsonl import read_batches, total_size
from ifguide.errors import InputError

CONTENT = b"first\n\nthird is longer\r\n" + b"x" * 1000 + b"\nlast without a line end"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


# one stream, and two that follow each other as `cat a.gz b.gz` makes them
STORED = {
    "plain.jsonl": CONTENT,
    "one.jsonl.gz": gzip.compress(CONTENT),
    "two.jsonl.gz": gzip.compress(CONTENT[:11]) + b"\0" * 40 + gzip.compress(CONTENT[11:]),
    "one.jsonl.zst": zstd(CONTENT),
    "two.jsonl.zst": zstd(CONTENT[:11]) + zstd(CONTENT[11:]),
}


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize(("read", "batch"), [(1, 1), (7, 30), (1 << 18, 1 << 19)])
def test_lines_do_not_depend_on_how_they_are_stored_or_read(tmp_path, monkeypatch, name, read, batch):
    monkeypatch.setattr(jsonl, "_READ_BYTES", read)
    monkeypatch.setattr(jsonl, "_BATCH_BYTES", batch)
    path = tmp_path / name
    path.write_bytes(STORED[name])
    batches = list(read_batches([path, path]))
    lines = [line for batch in batches for line in batch.lines]
    assert lines == CONTENT.split(b"\n") * 2
    numbers = [batch.first_line + i for batch in batches for i in range(len(batch.lines))]
    assert numbers == [1, 2, 3, 4, 5] * 2
    positions = [batch.position for batch in batches]
    assert positions == sorted(positions) and positions[-1] == total_size([path, path])


@pytest.mark.parametrize("name", ["one.jsonl.gz", "one.jsonl.zst"])
@pytest.mark.parametrize(
    ("damage", "message"), [("cut", "is truncated"), ("noise", "is not a whole"), ("empty", "truncated")]
)
def test_damaged_archives_are_not_taken_for_short_ones(tmp_path, name, damage, message):
    data = STORED[name]
    path = tmp_path / name
    path.write_bytes({"cut": data[:-3], "noise": b"noise" + data, "empty": b""}[damage])
    with pytest.raises(InputError, match=message) as caught:
        list(read_batches([path]))
    assert str(path) in str(caught.value)


def test_inputs_are_checked_before_they_are_read(tmp_path):
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(InputError, match="does not exist or is not a file"):
            total_size([path])


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", gzip.compress(CONTENT), "is gzip data, not text; give it a name that ends in .gz"),
        ("a.jsonl.GZ", gzip.compress(CONTENT), "is gzip data, not text; give it a name that ends in .gz"),
        ("a.jsonl.zst", gzip.compress(CONTENT), "is gzip data, not text; give it a name that ends in .gz"),
        ("a.jsonl.gz", zstd(CONTENT), "is zstandard data, not text; give it a name that ends in .zst"),
        ("a.jsonl", zstd(CONTENT), "is zstandard data, not text; give it a name that ends in .zst"),
        ("a.jsonl.bz2", bz2.compress(CONTENT), "is bzip2 data, not text; decompress it with bunzip2"),
        ("a.jsonl.gz", bz2.compress(CONTENT), "is bzip2 data, not text; decompress it with bunzip2"),
        ("a.jsonl.gz", b'{"text": "a"}\n', "is plain text, not gzip data; take .gz off its name"),
        ("a.jsonl.zst", b'\xef\xbb\xbf{"text": "a"}', "is plain text, not zstandard data; take .zst off its name"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "is UTF-16 text, not text; save it as UTF-8"),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path, name, data, says):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"^input {path} {says}"):
        list(read_batches([path]))


def test_a_name_says_nothing_of_plain_text(tmp_path):
    path = tmp_path / "once.bz2"
    path.write_bytes(CONTENT)
    assert [line for batch in read_batches([path]) for line in batch.lines] == CONTENT.split(b"\n")
