"""Rows of tables: which columns hold the text, and how rows become batches of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ifguide.data.sources.lines import BATCH_BYTES
from ifguide.data.sources.records import ROWS, Batch
from ifguide.errors import InputError
from ifguide.system.text_files import LineFault

# rows that are read at once: few enough that long ones do not fill the memory
READ_ROWS = 256
_SHOWN = 12


def columns_of(keys: Sequence[str] | None, columns: Sequence[str] | None, source: str) -> list[str] | None:
    """Those of ``columns`` that ``keys`` need, ``a`` for ``a.b`` unless a column of that name is there.

    Args:
        keys: as of `records.text_of`; None for whole rows.
        columns: of the table; None where only reading will tell.
        source: the table, for messages.

    Returns:
        None for all columns.

    Raises:
        InputError: there is none; lists what there is.
    """
    if keys is None or columns is None:
        return None
    needed = [key if key in columns else key.partition(".")[0] for key in keys]
    found = [name for name in dict.fromkeys(needed) if name in columns]
    if not found:
        more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
        raise InputError(
            f"{source} has no column {' or '.join(map(repr, keys))} (--jsonl-keys); it has "
            f"{', '.join(columns[:_SHOWN]) or 'none'}{more}"
        )
    return found


def row_batches(
    source: str, rows: Iterable[dict[str, Any] | LineFault], position: Callable[[int, int], int]
) -> Iterator[Batch]:
    """Batches of about `BATCH_BYTES` characters.

    Args:
        source: its name, for messages.
        position: (rows so far, characters so far) -> bytes of all sources so far.
    """
    first, size, held, total = 1, 0, [], 0
    for row in rows:
        held.append(row)
        size += 0 if isinstance(row, LineFault) else _characters(row)
        if size >= BATCH_BYTES:
            total += size
            yield Batch(source, ROWS, first, held, position(first + len(held) - 1, total))
            first, size, held = first + len(held), 0, []
    if held:
        yield Batch(source, ROWS, first, held, position(first + len(held) - 1, total + size))


def rows_of(table: Any) -> Iterator[dict[str, Any] | LineFault]:
    """The rows of a pyarrow table or batch; a `LineFault` of one whose text is not UTF-8, which pyarrow does not
    look at before."""
    try:
        yield from table.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for place in range(table.num_rows):
        try:
            yield table.slice(place, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield LineFault(f"not UTF-8 (byte {error.start} of a text); write the row again")


def _characters(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 8
