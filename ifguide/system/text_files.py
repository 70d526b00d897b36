"""Text that a user gives us: every reader of it decodes, parses and refuses here, with one message.

A file is UTF-8, with or without a byte order mark. What is refused is named by what its first bytes say it is, and by
the line where it goes wrong: `FILE line N: reason; what to do`. So are the halves of surrogate pairs that JSON can
spell, which no encoding and no tokenizer takes.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ifguide.errors import InputError

BOM = b"\xef\xbb\xbf"
# enough of a file to tell what it is
HEAD_BYTES = 10

# what a file starts with -> what it is, and the way out; no text starts so
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip data", "decompress it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstandard data", "decompress it with unzstd"),
    *(
        (b"BZh%d%s" % (level, block), "bzip2 data", "decompress it with bunzip2")
        for level in range(1, 10)
        for block in (b"1AY&SY", b"\x17rE8P\x90")
    ),
    (b"\xfd7zXZ\0", "xz data", "decompress it with unxz"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"PAR1\x15", "a Parquet file", "write its rows as JSON lines"),
    (b"ARROW1\0\0", "an Arrow file", "write its rows as JSON lines"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class LineFault(ValueError):
    """Why a line cannot be used, and what to do about it: half a sentence that goes after the file and the line."""


class NotUnicodeError(InputError):
    """A text holds a lone surrogate; the message says which one and where in the text."""


def require_unicode(text: str) -> str:
    """``text`` itself.

    Raises:
        NotUnicodeError: it holds a lone surrogate. Callers put file and line before the message.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise NotUnicodeError(
            f"the text holds a lone surrogate (U+{code:04X}, character {error.start + 1}), which is not Unicode text"
        ) from None
    return text


def what_it_is(head: bytes) -> tuple[str, str] | None:
    """What a file with these first bytes holds instead of text, and the way out; None if it may be text."""
    return next(((what, way) for magic, what, way in _MAGIC if head.startswith(magic)), None)


def require_text(head: bytes, path: str | os.PathLike, what: str) -> None:
    """
    Raises:
        InputError: a file with these first bytes is no text; names what it is.
    """
    found = what_it_is(head)
    if found is not None:
        raise InputError(f"{what} {os.fspath(path)} is {found[0]}, not text; {found[1]}")


def line_message(what: str, path: str | os.PathLike, number: int, reason: object) -> str:
    """The one message of all readers."""
    return f"{what} {os.fspath(path)} line {number}: {reason}"


def read_bytes(path: str | os.PathLike, what: str) -> bytes:
    """A whole file of text, as bytes.

    Raises:
        InputError: missing, unreadable, or no text by its first bytes.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(unreadable(error, path, what)) from error
    require_text(data[:HEAD_BYTES], path, what)
    return data


def read_text(path: str | os.PathLike, what: str = "file") -> str:
    """A whole text file, without its byte order mark, with ``\\n`` for every line end.

    Raises:
        InputError: missing, unreadable, or not UTF-8; names the line.
    """
    data = read_bytes(path, what)
    try:
        text = decode(data)
    except LineFault:
        raise InputError(line_message(what, path, *line_fault(data))) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_rows(path: str | os.PathLike, what: str = "file") -> Iterator[tuple[int, dict[str, Any]]]:
    """``(number of the line from 1, its JSON object)`` of each line that is not blank.

    Raises:
        InputError: missing, no text, or a line that `parse_row` refuses (names it).
    """
    try:
        with open(path, "rb") as stream:
            require_text(stream.peek(HEAD_BYTES), path, what)
            for number, line in enumerate(stream, 1):
                line = line.rstrip(b"\r\n")
                if is_blank(line):
                    continue
                try:
                    row = parse_row(line)
                    require_unicode_row(row, line)
                except LineFault as fault:
                    raise InputError(line_message(what, path, number, fault)) from None
                yield number, row
    except OSError as error:
        raise InputError(unreadable(error, path, what)) from error


def is_blank(line: bytes) -> bool:
    """Whether a line holds white space alone; a byte order mark is none of its text."""
    return not line.removeprefix(BOM).strip()


def decode(data: bytes) -> str:
    """The text of a line or of a whole file, without its byte order mark.

    Raises:
        LineFault: not UTF-8.
    """
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LineFault(_not_utf8(error.start)) from None


def line_fault(data: bytes) -> tuple[int, LineFault]:
    """(number from 1, what is wrong) of the line where a whole file that `decode` refuses goes wrong."""
    for number, line in enumerate(data.removeprefix(BOM).split(b"\n"), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            return number, LineFault(_not_utf8(error.start))
    raise ValueError("the text is UTF-8")


def parse_row(line: bytes) -> dict[str, Any]:
    """The JSON object on a line; a byte order mark in front of it is skipped.

    Raises:
        LineFault: not UTF-8, not JSON, or no object.
    """
    text = decode(line)
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        if "\0" in text:
            raise LineFault("holds NUL bytes, as a file does whose writing was cut short; write it again") from None
        raise LineFault(f"not valid JSON ({error.msg}, column {error.colno})") from None
    except ValueError as error:  # a number with too many digits
        raise LineFault(f"not valid JSON ({error})") from None
    except RecursionError:
        raise LineFault("not valid JSON (nested too deeply)") from None
    if not isinstance(row, dict):
        raise LineFault(f"expected a JSON object, got {type(row).__name__}")
    return row


def require_unicode_row(value: Any, line: bytes | None = None) -> None:
    """JSON can spell half of a surrogate pair alone: no tokenizer takes it, no file holds it.

    Args:
        value: what was parsed.
        line: that it was parsed from, to pass over lines that spell no surrogate at all.

    Raises:
        LineFault: a text in ``value`` holds one; names the field.
    """
    if line is not None and not _ESCAPED_SURROGATE.search(line):
        return
    for field, text in _texts(value, ""):
        try:
            require_unicode(text)
        except NotUnicodeError as error:
            where = f'"{field}": ' if field else ""
            raise LineFault(f"{where}{error}; replace it with the whole character or remove it") from None


def unreadable(error: OSError, path: str | os.PathLike, what: str) -> str:
    """Why ``path`` cannot be read, as one sentence."""
    subject = f"{what} {os.fspath(path)}"
    if error.errno == errno.ENOENT:
        return f"{subject} does not exist"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission for {subject}"
    return f"{subject} cannot be read: {error.strerror or error}"


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, keys included, with the field of the row that it is in."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, field)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield field, key
            yield from _texts(part, field or key)


def _not_utf8(byte: int) -> str:
    return f"not UTF-8 (byte {byte}); save the file as UTF-8"
