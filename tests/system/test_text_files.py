"""What a file is, which line is wrong, and what every reader says of it."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from ifguide.errors import InputError
from ifguide.system.files import read_json, read_jsonl
from ifguide.system.text_files import LineFault, parse_row, read_rows, read_text, require_unicode_row, what_it_is

TEXT = b'{"text": "a"}\n'
NO_TEXT = {
    gzip.compress(TEXT): "gzip data",
    bz2.compress(TEXT): "bzip2 data",
    bz2.compress(b"", 1): "bzip2 data",
    lzma.compress(TEXT): "xz data",
    zstandard.ZstdCompressor().compress(TEXT): "zstandard data",
    TEXT.decode().encode("utf-16"): "UTF-16 text",
    b"\xfe\xff" + TEXT.decode().encode("utf-16-be"): "UTF-16 text",
    b"PK\x03\x04rest": "a zip archive",
    b"PAR1\x15rest": "a Parquet file",
}


@pytest.mark.parametrize("data", NO_TEXT, ids=[*NO_TEXT.values()])
def test_first_bytes_say_what_is_no_text(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "given.jsonl"
    path.write_bytes(data)
    found = what_it_is(data)
    assert found is not None
    for read in (read_jsonl, read_text):
        with pytest.raises(InputError) as raised:
            read(path, "prompts")
        assert str(raised.value) == f"prompts {path} is {NO_TEXT[data]}, not text; {found[1]}"
    with pytest.raises(InputError, match=f"^prompts {path} is not valid JSON: it is {NO_TEXT[data]}; "):
        read_json(path, "prompts")


def test_text_is_not_taken_for_anything_else() -> None:
    for text in (
        "",
        "{",
        "P",
        "PK are two letters",
        "BZ",
        "BZh9 is a word",
        "PAR1 is one",
        "ARROW1",
        "été",
        "\ufeff{",
        "Б",
        "日本",
    ):
        assert what_it_is(text.encode()) is None


BAD_LINES = {
    b'{"text": "\xff"}': "not UTF-8 (byte 10); save the file as UTF-8",
    b'{"text": "\xed\xa0\xbd"}': "not UTF-8 (byte 10); save the file as UTF-8",
    b'{"text": "cut': "not valid JSON (Unterminated string starting at, column 10)",
    b'{"text": "a"}\0\0\0': "holds NUL bytes, as a file does whose writing was cut short; write it again",
    b'{"n": ' + b"9" * 5000 + b"}": "not valid JSON (Exceeds the limit (4300 digits) for integer string conversion",
    b"[" * 100_000: "not valid JSON (nested too deeply)",
    b"[1]": "expected a JSON object, got list",
    b'{"a": {"text": ["ok", "x \\ud83d"]}}': (
        '"a": the text holds a lone surrogate (U+D83D, character 3), which is not Unicode text; replace it with the '
        "whole character or remove it"
    ),
    b'{"\\udE00": 1}': "the text holds a lone surrogate (U+DE00, character 1), which is not Unicode text; replace",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_lines_are_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "given.jsonl"
    path.write_bytes(TEXT + b"\n" + line + b"\n" + TEXT)
    with pytest.raises(InputError) as raised:
        read_jsonl(path, "prompts")
    assert str(raised.value).startswith(f"prompts {path} line 3: {BAD_LINES[line]}")


def test_a_nul_that_is_spelled_and_whole_pairs_are_text() -> None:
    line = b'{"text": "a\\u0000b \\ud83d\\ude00"}'
    row = parse_row(line)
    require_unicode_row(row, line)
    assert row == {"text": "a\0b \U0001f600"}


def test_a_surrogate_is_found_without_its_line_too() -> None:
    with pytest.raises(LineFault, match="lone surrogate"):
        require_unicode_row(["fine", "\ud800"])


def test_line_numbers_count_blank_lines_and_marks_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "given.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"b": "\xe2\x80\xa8"}')
    assert list(read_rows(path)) == [(1, {"a": 1}), (4, {"b": "\u2028"})]
    path.write_bytes(b"\xef\xbb\xbf\r\n")
    assert list(read_rows(path)) == []
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(path) == "one\ntwo\nthree\n"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}


def test_the_line_of_a_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("ä\n\nbé".encode() + b"\xff\n")
    with pytest.raises(InputError, match=rf"^word list {path} line 3: not UTF-8 \(byte 3\); save the file as UTF-8$"):
        read_text(path, "word list")


def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    for read in (read_jsonl, read_text):
        with pytest.raises(InputError, match=f"^prompts {tmp_path}/none does not exist$"):
            read(tmp_path / "none", "prompts")
        with pytest.raises(InputError, match=f"^prompts {tmp_path} cannot be read: Is a directory$"):
            read(tmp_path, "prompts")
