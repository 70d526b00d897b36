"""Streaming the lines of large text files, plain or compressed, without losing a truncated end."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.system.text_files import HEAD_BYTES, require_text, unreadable, what_it_is

_READ_BYTES = 1 << 18
_BATCH_BYTES = 1 << 19
# what is read although it is no text, by the end of its name
_COMPRESSED = {".gz": "gzip data", ".zst": "zstandard data"}


@dataclass(frozen=True)
class LineBatch:
    """Consecutive lines of one file.

    Attributes:
        path: the file.
        first_line: number of ``lines[0]``, from 1.
        lines: without their line ends.
        position: bytes of all inputs, as stored, read so far (for progress).
    """

    path: str
    first_line: int
    lines: list[bytes]
    position: int


def total_size(paths: Sequence[str | os.PathLike]) -> int:
    """Bytes of all inputs as stored; checks that each can be opened.

    Raises:
        InputError: names the first that is missing or unreadable.
    """
    total = 0
    for path in paths:
        if not Path(path).is_file():
            raise InputError(f"input {path} does not exist or is not a file")
        try:
            with open(path, "rb") as stream:
                total += os.fstat(stream.fileno()).st_size
        except OSError as error:
            raise InputError(unreadable(error, path, "input")) from None
    return total


def read_batches(paths: Sequence[str | os.PathLike]) -> Iterator[LineBatch]:
    """All lines of all inputs, in order. ``.gz`` and ``.zst`` files are decompressed on the way.

    Raises:
        InputError: a compressed file is damaged or ends early, a file cannot be read, is neither text nor what its
            name says, or zstandard is not installed.
    """
    done = 0
    for name in paths:
        path = os.fspath(name)
        try:
            with open(path, "rb") as raw:
                number, size, lines = 1, 0, []
                for line in _lines(_chunks(path, raw)):
                    lines.append(line)
                    size += len(line)
                    if size >= _BATCH_BYTES:
                        yield LineBatch(path, number, lines, done + raw.tell())
                        number, size, lines = number + len(lines), 0, []
                done += raw.tell()
                if lines:
                    yield LineBatch(path, number, lines, done)
        except OSError as error:
            raise InputError(unreadable(error, path, "input")) from None


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    pending = b""
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        yield from lines
    if pending:
        yield pending


def _chunks(path: str, raw: BufferedReader) -> Iterator[bytes]:
    suffix, head = Path(path).suffix, raw.peek(HEAD_BYTES)
    _check_suffix(path, suffix, head)
    if suffix == ".gz":
        yield from _decompress(path, raw, lambda: zlib.decompressobj(wbits=31), zlib.error)
    elif suffix == ".zst":
        try:
            import zstandard
        except ModuleNotFoundError:
            raise InputError(f"input {path} needs the package zstandard; install it, or decompress the file") from None
        yield from _decompress(path, raw, lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError)
    else:
        while data := raw.read(_READ_BYTES):
            yield data


def _check_suffix(path: str, suffix: str, head: bytes) -> None:
    """
    Raises:
        InputError: the first bytes say that the file is something else than its name says, or nothing that is read.
    """
    found = what_it_is(head)
    is_suffix = next((name for name, kind in _COMPRESSED.items() if found and found[0] == kind), None)
    if suffix == is_suffix or not head:
        return
    if is_suffix is not None:
        raise InputError(
            f"input {path} is {found[0] if found else ''}, not text; give it a name that ends in {is_suffix}, "
            "which is read as it is"
        )
    require_text(head, path, "input")
    if suffix in _COMPRESSED and head[:1] in b"{[ \t\r\n\xef":
        raise InputError(f"input {path} is plain text, not {_COMPRESSED[suffix]}; take {suffix} off its name")


def _decompress(path: str, raw: BufferedReader, new: Callable[[], Any], fault: type[Exception]) -> Iterator[bytes]:
    """Decompress all members (frames) of a file. The libraries' own stream readers take a truncated zstd
    file for a whole one, so the end of the last frame is checked here."""
    frame = new()
    try:
        while data := raw.read(_READ_BYTES):
            while data:
                if frame.eof:
                    data = data.lstrip(b"\0")  # gzip files may be padded with zeros
                    if not data:
                        break
                    frame = new()
                yield frame.decompress(data)
                data = frame.unused_data if frame.eof else b""
    except fault as error:
        raise InputError(f"input {path} is not a whole {Path(path).suffix} file: {error}") from None
    if not frame.eof:
        raise InputError(f"input {path} is truncated: its compressed data ends early; copy it again")
