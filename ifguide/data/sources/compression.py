"""The bytes of a file, decompressed on the way, without losing a truncated end."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from ifguide.data.sources.names import COMPRESSIONS, PARQUET
from ifguide.errors import InputError
from ifguide.requirements.needs import how_to_install
from ifguide.system.text_files import HEAD_BYTES, require_text, what_it_is

READ_BYTES = 1 << 18
# what other packages read although it is no text, by the end of its name
_READ = {**COMPRESSIONS, f".{PARQUET}": "a Parquet file"}


def missing(package: str, source: str, otherwise: str) -> InputError:
    """What to say where a source needs a package that is not installed.

    Args:
        source: what needs it, as ``input FILE``.
        otherwise: what to do without it.
    """
    return InputError(f"{source} needs the package {package}; {how_to_install([package])}, or {otherwise}")


def chunks(path: str, raw: BufferedReader, what: str) -> Iterator[bytes]:
    """All bytes of an open file, in pieces.

    Args:
        path: its name, whose end says how it is compressed.
        raw: the file, at its start.
        what: its role, for messages.

    Raises:
        InputError: compressed data is damaged or ends early, the file is neither text nor what its name says, or
            zstandard is not installed.
    """
    suffix, head = Path(path).suffix, raw.peek(HEAD_BYTES)
    _check_suffix(path, suffix, head, what)
    if suffix == ".gz":
        yield from _decompress(path, raw, lambda: zlib.decompressobj(wbits=31), zlib.error, what)
    elif suffix == ".zst":
        try:
            import zstandard
        except ModuleNotFoundError:
            raise missing("zstandard", f"{what} {path}", "decompress the file") from None
        new = zstandard.ZstdDecompressor().decompressobj
        yield from _decompress(path, raw, new, zstandard.ZstdError, what)
    elif suffix == ".bz2":
        yield from _decompress(path, raw, bz2.BZ2Decompressor, OSError, what)
    elif suffix == ".xz":
        yield from _decompress(path, raw, lzma.LZMADecompressor, lzma.LZMAError, what)
    else:
        while data := raw.read(READ_BYTES):
            yield data


def _check_suffix(path: str, suffix: str, head: bytes, what: str) -> None:
    """
    Raises:
        InputError: the first bytes say that the file is something else than its name says, or nothing that is read.
    """
    found = what_it_is(head)
    is_suffix = next((name for name, kind in _READ.items() if found and found[0] == kind), None)
    if suffix == is_suffix or not head:
        return
    if is_suffix is not None:
        raise InputError(
            f"{what} {path} is {found[0] if found else ''}, not text; give it a name that ends in {is_suffix}, "
            "which is read as it is"
        )
    require_text(head, path, what)
    if suffix in COMPRESSIONS and head[:1] in b"{[ \t\r\n\xef":
        raise InputError(f"{what} {path} is plain text, not {COMPRESSIONS[suffix]}; take {suffix} off its name")


def _decompress(
    path: str, raw: BufferedReader, new: Callable[[], Any], fault: type[Exception], what: str
) -> Iterator[bytes]:
    """Decompress all members (frames, streams) of a file. The libraries' own stream readers take a truncated zstd
    file for a whole one, so the end of the last frame is checked here."""
    frame = new()
    while data := raw.read(READ_BYTES):
        while data:
            if frame.eof:
                data = data.lstrip(b"\0")  # gzip and xz files may be padded with zeros
                if not data:
                    break
                frame = new()
            try:
                piece = frame.decompress(data)
            except (fault, EOFError) as error:
                raise InputError(f"{what} {path} is not a whole {Path(path).suffix} file: {error}") from None
            yield piece
            data = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise InputError(f"{what} {path} is truncated: its compressed data ends early; copy it again")
