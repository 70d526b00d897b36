"""Text files as batches: lines of JSON, lines of plain text, or whole files of it."""

from __future__ import annotations

from collections.abc import Iterator

from ifguide.data.sources.compression import chunks
from ifguide.data.sources.names import TEXT, Source
from ifguide.data.sources.records import Batch
from ifguide.errors import InputError
from ifguide.system.text_files import unreadable

BATCH_BYTES = 1 << 19
# one document of more than this is a mistake, and would not fit into memory as tokens
MOST_BYTES = 1 << 30


def text_batches(source: Source, before: int, what: str) -> Iterator[Batch]:
    """The records of a text file, with any compression that its name says.

    Args:
        before: bytes of the sources before this one.

    Raises:
        InputError: it cannot be read (`compression.chunks`), or one document of it is beyond all measure.
    """
    path = source.name
    try:
        with open(path, "rb") as raw:
            pieces = chunks(path, raw, what)
            if source.kind == TEXT:
                data = b"".join(_at_most(pieces, path, what))
                yield Batch(path, TEXT, 1, [data], before + raw.tell())
                return
            number, size, lines = 1, 0, []
            for line in _lines(pieces):
                lines.append(line)
                size += len(line)
                if size >= BATCH_BYTES:
                    yield Batch(path, source.kind, number, lines, before + raw.tell())
                    number, size, lines = number + len(lines), 0, []
            if lines:
                yield Batch(path, source.kind, number, lines, before + raw.tell())
    except OSError as error:
        raise InputError(unreadable(error, path, what)) from None


def _at_most(pieces: Iterator[bytes], path: str, what: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MOST_BYTES:
            raise InputError(
                f"{what} {path} would be one document of more than {MOST_BYTES >> 30} GiB; --format lines makes a "
                "document of each line"
            )
        yield piece


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    pending: list[bytes] = []  # of a line that goes on; joined once, however long it is
    for piece in pieces:
        first, *others = piece.split(b"\n")
        pending.append(first)
        if others:
            yield b"".join(pending)
            yield from others[:-1]
            pending = [others[-1]]
    last = b"".join(pending)
    if last:
        yield last
