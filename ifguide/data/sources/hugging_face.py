"""Data sets of the package `datasets`: a folder that `save_to_disk` wrote or of data files, or a name on the hub.

A saved data set is memory-mapped; everything else is streamed, so that nothing is downloaded whole or written to a
cache. The network is used only for a name that is no folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ifguide.data.sources.compression import missing
from ifguide.data.sources.names import DatasetName, Source, is_saved, parse_dataset
from ifguide.data.sources.records import Batch
from ifguide.data.sources.rows import READ_ROWS, columns_of, row_batches, rows_of
from ifguide.errors import InputError, first_line
from ifguide.system.text_files import LineFault

DEFAULT_SPLIT = "train"


def dataset_columns(source: Source, keys: Sequence[str] | None, what: str) -> list[str] | None:
    """The columns that ``keys`` need; None (all) where no keys are named, or where only reading will tell.

    Raises:
        InputError: no such data set, split or column, a hub that cannot be reached, or `datasets` is not installed.
    """
    return columns_of(keys, _load(source, what).column_names, f"{what} {source.name}")


def dataset_batches(source: Source, before: int, keys: Sequence[str] | None, what: str) -> Iterator[Batch]:
    """The rows of a split.

    Args:
        before: bytes of the sources before this one.
        keys: as of `records.text_of`; None for whole rows.

    Raises:
        InputError: as `dataset_columns`, or it ends in the middle; names the row.
    """
    dataset = _load(source, what)
    columns = dataset_columns(source, keys, what)
    if columns is not None:
        dataset = dataset.select_columns(columns)
    count, size = _length(dataset), source.size

    def position(rows: int, characters: int) -> int:
        # of what is streamed nobody knows how much is left, so characters stand for bytes
        return before + (characters if size is None or count is None else size * rows // max(count, 1))

    yield from row_batches(source.name, _rows(dataset, source.name, what), position)


def has_known_length(source: Source, what: str) -> bool:
    """Whether positions in it are shares of its size.

    Raises:
        InputError: as `dataset_columns`.
    """
    return source.size is not None and _length(_load(source, what)) is not None


def _rows(dataset: Any, name: str, what: str) -> Iterator[dict[str, Any] | LineFault]:
    number = 0
    parts = dataset.with_format("arrow").iter(READ_ROWS)
    while True:
        try:
            part = next(parts, None)
        except Exception as error:  # whatever the transport and the readers of other formats raise
            raise InputError(f"{what} {name} cannot be read after row {number}: {first_line(error)}") from error
        if part is None:
            return
        for row in rows_of(part):
            number += 1
            yield row


def _length(dataset: Any) -> int | None:
    return len(dataset) if hasattr(dataset, "__len__") else None


@lru_cache(maxsize=8)  # the hub is asked once, not for the columns, the size and the rows
def _load(source: Source, what: str) -> Any:
    try:
        import datasets
    except ModuleNotFoundError:
        raise missing("datasets", f"{what} {source.name}", "write its rows as JSON lines or Parquet") from None
    spec = parse_dataset(source.name)
    try:
        if is_saved(spec.path):
            found = datasets.load_from_disk(spec.path)
        else:
            found = datasets.load_dataset(spec.path, spec.config, streaming=True)
    except Exception as error:  # the hub's client raises what its transport raises
        raise InputError(_unreachable(spec, source.name, what, error)) from error
    if not isinstance(found, Mapping):
        if spec.split is not None:
            raise InputError(f"{what} {source.name} has no splits; leave out #{spec.split}")
        return found
    split = spec.split or (next(iter(found)) if len(found) == 1 else DEFAULT_SPLIT)
    if split not in found:
        wrong = f"no split {split!r}" if spec.split else f"several splits and none is {DEFAULT_SPLIT!r}"
        raise InputError(f"{what} {source.name} has {wrong}; write #SPLIT with one of {', '.join(found)}")
    return found[split]


def _unreachable(spec: DatasetName, name: str, what: str, error: Exception) -> str:
    if spec.is_folder:
        return f"{what} {name} cannot be read as a data set: {first_line(error)}"
    return (
        f"{what} {name}: {spec.path} is no folder here and cannot be read from the hub ({first_line(error)}); "
        "download it where there is a network, and name its folder: dataset:FOLDER#SPLIT"
    )
