"""Inputs to batches of records, for long work, and to rows, for files that are read whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from ifguide.data.sources.hugging_face import dataset_batches, dataset_columns, has_known_length
from ifguide.data.sources.lines import text_batches
from ifguide.data.sources.names import DATA_SET, PARQUET, Source, find_sources
from ifguide.data.sources.parquet import parquet_batches, parquet_columns
from ifguide.data.sources.records import Batch, Place
from ifguide.errors import InputError
from ifguide.system.text_files import LineFault


def check_sources(sources: Sequence[Source], keys: Sequence[str], what: str = "input") -> None:
    """Look into every table before the long work.

    Raises:
        InputError: one is damaged, has none of the columns ``keys``, or needs a package that is not installed.
    """
    for source in sources:
        if source.kind == PARQUET:
            parquet_columns(source, keys, what)
        elif source.kind == DATA_SET:
            dataset_columns(source, keys, what)


def total_size(sources: Sequence[Source], what: str = "input") -> int | None:
    """Bytes of all sources as stored, where `Batch.position` will end; None where nobody knows it before.

    Raises:
        InputError: a data set that cannot be opened.
    """
    if any(one.kind == DATA_SET and not has_known_length(one, what) for one in sources):
        return None
    return sum(one.size or 0 for one in sources)


def read_batches(sources: Sequence[Source], keys: Sequence[str] | None, what: str = "input") -> Iterator[Batch]:
    """All records of all sources, in order; how they are cut into batches depends on the sources alone.

    Args:
        keys: where the text stands (`records.text_of`); None for whole rows.
        what: their role, for messages.

    Raises:
        InputError: a source cannot be read to its end.
    """
    before = 0
    for source in sources:
        position = before
        for batch in _batches(source, before, keys, what):
            position = batch.position
            yield batch
        before = position if source.size is None or source.kind == DATA_SET else before + source.size


def read_rows(name: str | os.PathLike, what: str = "file") -> Iterator[tuple[Place, dict[str, Any]]]:
    """(where it stands, the record) of all that ``name`` names (`names.find_sources`).

    Args:
        what: its role, for messages.

    Raises:
        InputError: missing, no text, or a record that cannot be used (names it).
    """
    for batch in read_batches(find_sources([name], what=what), None, what):
        for place, row in batch.rows():
            if isinstance(row, LineFault):
                raise InputError(place.message(what, row))
            yield place, row


def _batches(source: Source, before: int, keys: Sequence[str] | None, what: str) -> Iterator[Batch]:
    if source.kind == PARQUET:
        return parquet_batches(source, before, keys, what)
    if source.kind == DATA_SET:
        return dataset_batches(source, before, keys, what)
    return text_batches(source, before, what)
