"""Boundaries beside the tokens: ``P.spans.{bin,idx,json}`` of the dataset ``P``, aligned uint8.

Bit 0: the token ends a line; bit 1: it ends a sentence. They are made once, by ``preprocess --spans`` or where they
are first needed, so that a mask is built without a tokenizer.

Shapes: D documents, N tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned, load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.passages.cutting import RULES, TokenText, boundaries_of
from ifguide.data.sidecar import BOUNDARIES, sidecar_path
from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError, MismatchError
from ifguide.system.progress import Progress
from ifguide.system.provenance import origin

_CHUNK_TOKENS = 1 << 18

ReaderOf = Callable[[str], TextReader]


def boundaries_prefix(data: str | os.PathLike) -> str:
    """Where the boundaries of the dataset ``data`` are kept."""
    return f"{os.fspath(data)}.spans"


def known_boundaries(tokens: TokenDataset) -> Aligned | None:
    """The boundaries beside ``tokens``; None where there are none, or those of other tokens or an earlier rule."""
    if not sidecar_path(boundaries_prefix(tokens.prefix)).exists():
        return None
    try:
        found = load_aligned(boundaries_prefix(tokens.prefix), tokens, BOUNDARIES)
    except InputError:
        return None
    return found if found.sidecar.get("rules") == RULES else None


def find_boundaries(tokens: TokenDataset, reader_of: ReaderOf, quiet: bool = True) -> Aligned:
    """The boundaries beside ``tokens``, made first where there are none that fit.

    Args:
        reader_of: prefix of a dataset -> the reader that it was made with.

    Raises:
        InputError: the tokenizer cannot be found, or the folder cannot be written.
    """
    found = known_boundaries(tokens)
    if found is not None:
        return found
    try:
        reader = reader_of(tokens.prefix)
    except MismatchError:
        raise
    except InputError as error:
        raise InputError(
            f"{tokens.prefix} has no boundaries of lines and sentences yet ({boundaries_prefix(tokens.prefix)}.json), "
            f"and they cannot be made: {error}"
        ) from None
    return write_boundaries(tokens, reader, quiet)


def write_boundaries(tokens: TokenDataset, reader: TextReader, quiet: bool = True) -> Aligned:
    """Make them, and write them beside ``tokens``."""
    prefix = boundaries_prefix(tokens.prefix)
    with Progress(tokens.num_tokens, "tokens", "find lines and sentences", quiet=quiet) as progress:
        pieces = _pieces(tokens, TokenText(reader), progress)
        write_aligned(prefix, tokens, pieces, np.uint8, {"rules": RULES, **origin()}, BOUNDARIES)
    return load_aligned(prefix, tokens, BOUNDARIES)


def read_tokens(tokens: TokenDataset, begin: int, end: int) -> NDArray[np.integer]:
    """Ids [begin, end), by a plain read: the pages of a memory map that were touched count as the process' memory."""
    size = tokens.dtype.itemsize
    found = np.fromfile(tokens.bin_path, tokens.dtype, end - begin, offset=begin * size)
    if len(found) != end - begin:
        raise InputError(f"{tokens.bin_path} became shorter while it was read; write it again")
    return found


def document_groups(starts: NDArray[np.int64], most_tokens: int) -> Iterator[tuple[int, int]]:
    """Consecutive documents [first, last) of at most ``most_tokens`` tokens together; a longer document alone."""
    first, count = 0, len(starts) - 1
    while first < count:
        last = int(np.searchsorted(starts, starts[first] + most_tokens, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def _pieces(tokens: TokenDataset, text: TokenText, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    for first, last in document_groups(tokens.starts, _CHUNK_TOKENS):
        starts = tokens.starts[first : last + 1]
        ids = read_tokens(tokens, int(starts[0]), int(starts[-1]))
        yield boundaries_of(ids, starts - starts[0], text)
        progress.update(len(ids))
