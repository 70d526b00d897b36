"""Document-level removal: the token dataset without the documents that were dropped.

Shapes: D documents, of which D' stay.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.fingerprint import fingerprint, make_fingerprint
from ifguide.data.indexed import TokenDataset, write_index
from ifguide.data.sidecar import FORMAT_VERSION, TOKENS, file_states, read_sidecar, sidecar_path
from ifguide.errors import InputError
from ifguide.selection.source import CHUNK_TOKENS, read_values
from ifguide.system.files import atomic_path, dump_json
from ifguide.system.provenance import origin, versions


def write_filtered(
    prefix: str | os.PathLike, tokens: TokenDataset, dropped: NDArray[np.int64], sidecar: dict[str, Any]
) -> dict[str, int]:
    """Write ``prefix.{bin,idx,json}``: ``tokens`` without the documents ``dropped``, in the same order. Every
    document that stays is a sequence of its own in ``doc_idx``.

    Returns:
        ``documents`` and ``tokens`` that stay.

    Raises:
        InputError: no token is left, or the folder cannot be written.
        OutOfSpaceError: the disk is full; earlier files are untouched.
    """
    stays = np.ones(tokens.num_documents, bool)
    stays[dropped] = False
    lengths = tokens.lengths[stays]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if not starts[-1]:
        raise InputError(f"no document of {tokens.prefix} would be left; give a smaller budget")
    counts = {"documents": len(lengths), "tokens": int(starts[-1])}
    write_documents(prefix, tokens, lengths, _kept(tokens, stays), {**sidecar, "counts": counts})
    return counts


def write_documents(
    prefix: str | os.PathLike,
    tokens: TokenDataset,
    lengths: NDArray[np.integer],
    pieces: Iterable[NDArray],
    sidecar: dict[str, Any],
) -> None:
    """Write ``prefix.{bin,idx,json}``, made of ``tokens``: documents of these lengths, each a sequence of its own in
    ``doc_idx``, whose ids are ``pieces`` one after the other.

    Raises:
        InputError: the folder cannot be written.
        OutOfSpaceError: the disk is full; earlier files are untouched.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    doc_idx = np.arange(len(lengths) + 1)
    prefix = os.fspath(prefix)
    with (
        atomic_path(sidecar_path(prefix)) as json_file,
        atomic_path(prefix + ".idx") as index_file,
        atomic_path(prefix + ".bin") as bin_file,
    ):
        digest = hashlib.blake2b(digest_size=32)
        with open(bin_file, "wb") as stream:
            for piece in pieces:
                stream.write(piece.data)
                digest.update(piece.data)
        write_index(index_file, tokens.dtype, lengths, starts, doc_idx)
        tokenizer = read_sidecar(tokens.prefix).get("tokenizer")
        dump_json(
            json_file,
            {
                "format_version": FORMAT_VERSION,
                "kind": TOKENS,
                **({"tokenizer": tokenizer} if tokenizer else {}),
                **sidecar,
                "data": fingerprint(tokens),
                "data_prefix": tokens.prefix,
                "fingerprint": make_fingerprint(tokens.dtype, lengths, doc_idx, digest.hexdigest()),
                "files": file_states(index_file, bin_file),
                "tool": versions(),
                **origin(),
            },
        )


def _kept(tokens: TokenDataset, stays: NDArray[np.bool_]) -> Iterator[NDArray]:
    """Values of the runs of documents that stay, in pieces of bounded size."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], stays, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2):
        for begin in range(int(tokens.starts[first]), int(tokens.starts[last]), CHUNK_TOKENS):
            yield read_values(tokens.tokens, begin, min(begin + CHUNK_TOKENS, int(tokens.starts[last])))
