"""Parquet files, row group by row group: only the columns that hold the text, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ifguide.data.sources.compression import missing
from ifguide.data.sources.names import Source, compression_of
from ifguide.data.sources.records import Batch
from ifguide.data.sources.rows import READ_ROWS, columns_of, row_batches, rows_of
from ifguide.errors import InputError, first_line
from ifguide.system.text_files import HEAD_BYTES, LineFault, unreadable, what_it_is

_MAGIC = b"PAR1"
# read of a column at once; a row group's column is read in pieces of this
_BUFFER = 1 << 20


def parquet_columns(source: Source, keys: Sequence[str] | None, what: str) -> list[str] | None:
    """The columns that ``keys`` need; None (all) where no keys are named.

    Raises:
        InputError: no whole Parquet file, no such column, or pyarrow is not installed.
    """
    with _open(source.name, what) as file:
        return columns_of(keys, file.schema_arrow.names, f"{what} {source.name}")


def parquet_batches(source: Source, before: int, keys: Sequence[str] | None, what: str) -> Iterator[Batch]:
    """The rows of a file.

    Args:
        before: bytes of the sources before this one.
        keys: as of `records.text_of`; None for whole rows.

    Raises:
        InputError: as `parquet_columns`, or data that is damaged; names the row group.
    """
    columns = parquet_columns(source, keys, what)
    size = source.size or 0
    with _open(source.name, what) as file:
        count = max(file.metadata.num_rows, 1)

        def position(rows: int, characters: int) -> int:
            return before + size * rows // count

        yield from row_batches(source.name, _rows(file, columns, source.name, what), position)


def _rows(file: Any, columns: list[str] | None, path: str, what: str) -> Iterator[dict[str, Any] | LineFault]:
    for group in range(file.num_row_groups):
        # one thread: the order is that of the file, and the workers need the cores
        parts = file.iter_batches(READ_ROWS, [group], columns=columns, use_threads=False)
        while True:
            try:
                part = next(parts, None)
            except (OSError, ValueError) as error:  # pyarrow's own are derived from these
                raise InputError(
                    f"{what} {path} row group {group + 1} of {file.num_row_groups} cannot be read: "
                    f"{first_line(error)}; copy the file again"
                ) from None
            if part is None:
                break
            yield from rows_of(part)


def _open(path: str, what: str) -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise missing("pyarrow", f"{what} {path}", "write its rows as JSON lines") from None
    if compression_of(path) is not None:
        raise InputError(f"{what} {path}: Parquet compresses its columns itself; decompress the file")
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        if not head.startswith(_MAGIC):
            found = what_it_is(head)
            is_what = found[0] if found else "no Parquet file"
            raise InputError(f"{what} {path} is {is_what}; give it the name of what it is")
        return pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except ValueError as error:
        raise InputError(f"{what} {path} is not a whole Parquet file ({first_line(error)}); copy it again") from None
    except OSError as error:
        raise InputError(unreadable(error, path, what)) from None
