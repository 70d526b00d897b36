"""Aligned datasets: one value per token, stored as an indexed dataset of the same shape as the tokens.

Scores are float32, penalties and boundaries uint8. The lengths and ``doc_idx`` are those of the token dataset, so a
value is found by (document, offset) whatever the seed, the sequence length or the number of GPUs.
The sidecar (`ifguide.data.sidecar`) says which tokens the values belong to: a loader refuses others.

Shapes: N_docs documents, N_tokens values in all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.fingerprint import Fingerprint, differences, fingerprint, make_fingerprint
from ifguide.data.indexed import IndexedDataset, TokenDataset, write_index
from ifguide.data.sidecar import (
    BOUNDARIES,
    FORMAT_VERSION,
    PENALTIES,
    SCORES,
    file_states,
    read_sidecar,
    sidecar_path,
)
from ifguide.data.text.record import Record, tokenizer_difference
from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.system.files import atomic_path, dump_json
from ifguide.system.progress import Progress
from ifguide.system.provenance import versions

ENCODINGS = ("binary", "graded")

DTYPES = {SCORES: np.dtype(np.float32), PENALTIES: np.dtype(np.uint8), BOUNDARIES: np.dtype(np.uint8)}
_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Aligned:
    """An opened aligned dataset.

    Attributes:
        dataset: the indexed dataset that holds the values.
        sidecar: its description; ``sidecar["data"]`` is the fingerprint of the tokens.
    """

    dataset: IndexedDataset
    sidecar: dict[str, Any]

    @property
    def prefix(self) -> str:
        return self.dataset.prefix

    @property
    def values(self) -> np.ndarray:
        """memmap[N_tokens], one value per token."""
        return self.dataset.values

    @property
    def starts(self) -> np.ndarray:
        """int64[N_docs + 1], offset of each document's first value."""
        return self.dataset.starts


def write_aligned(
    prefix: str | os.PathLike,
    like: TokenDataset | Aligned,
    values: np.ndarray | Iterable[np.ndarray],
    dtype: np.dtype | type,
    sidecar: dict[str, Any],
    kind: str | None = None,
) -> None:
    """Write ``prefix.{bin,idx,json}``: one value for each token of ``like``.

    All three files are complete on disk before the first is moved into place, the sidecar last. A job
    killed between two of these renames leaves a sidecar that does not describe its files, which
    `load_aligned` refuses.

    Args:
        prefix: where to write.
        like: the tokens, or other values of the same tokens (a mask is written from its scores alone).
        values: [N_tokens] in document order, whole or in consecutive pieces.
        dtype: float32 (scores) or uint8 (penalties).
        sidecar: what the caller knows: parameters, counts, ``encoding`` for penalties. The fields that
            identify the data and the files are added here.
        kind: what the values are; None: scores or penalties, as ``dtype`` says.

    Raises:
        MismatchError: there are more or fewer values than tokens.
        InputError: the folder cannot be written, or a binary mask holds a value above 1.
        OutOfSpaceError: the disk is full; earlier files are untouched.
    """
    dtype = np.dtype(dtype)
    kind = kind or _kind_of(dtype)
    if kind == PENALTIES and sidecar.get("encoding") not in ENCODINGS:
        raise ValueError(f"a penalty mask needs an encoding, one of {ENCODINGS}, in its sidecar")
    source = like.dataset if isinstance(like, Aligned) else like
    prefix = os.fspath(prefix)
    with (
        atomic_path(sidecar_path(prefix)) as json_file,
        atomic_path(prefix + ".idx") as index_file,
        atomic_path(prefix + ".bin") as bin_file,
    ):
        content_hash = _write_values(bin_file, values, dtype, source, sidecar.get("encoding") == "binary")
        write_index(index_file, dtype, source.lengths, source.starts, source.doc_idx)
        dump_json(
            json_file,
            {
                "format_version": FORMAT_VERSION,
                "kind": kind,
                **sidecar,
                **_identity(like),
                "fingerprint": make_fingerprint(dtype, source.lengths, source.doc_idx, content_hash),
                "files": file_states(index_file, bin_file),
                "tool": versions(),
            },
        )


def load_aligned(prefix: str | os.PathLike, tokens: TokenDataset | None, kind: str, mapped: bool = False) -> Aligned:
    """Open scores or penalties and make sure that they belong to ``tokens``.

    Args:
        prefix: as given to `write_aligned`.
        tokens: the tokens they must belong to, or None to check the files against their own sidecar only.
        kind: ``scores``, ``penalties`` or ``boundaries``.
        mapped: as for `IndexedDataset.open`.

    Raises:
        InputError: a file is missing or damaged.
        MismatchError: another kind or dtype, not the files that the sidecar describes, or values of
            other tokens; says what differs.
    """
    opened = open_aligned(prefix, kind, mapped)
    dataset, sidecar = opened.dataset, opened.sidecar
    name = f"{_called(kind)} {dataset.prefix}"
    changed = differences(sidecar.get("fingerprint") or {}, fingerprint(dataset))
    if changed:
        raise MismatchError(
            f"{name} is not what its sidecar describes ({'; '.join(changed)}): "
            "it was changed, or the job that replaced it was killed; write it again"
        )
    if tokens is not None:
        made_with = read_sidecar(tokens.prefix).get("tokenizer")
        faults = alignment_faults(dataset, sidecar, tokens, fingerprint(tokens), made_with)
        if faults:
            raise MismatchError(
                f"{name} {'was' if kind == PENALTIES else 'were'} made for other data than {tokens.prefix} "
                f"({'; '.join(faults)}): name the right data, or make the {_called(kind)} again"
            )
    return opened


def open_aligned(prefix: str | os.PathLike, kind: str, mapped: bool = False) -> Aligned:
    """Open scores or penalties and believe their sidecar about the values: for files that were compared before, and
    are known to be the same ones.

    Raises:
        InputError, MismatchError: as `load_aligned`, but for what only the values can tell.
    """
    dataset = IndexedDataset.open(prefix, mapped)
    name = f"{_called(kind)} {dataset.prefix}"
    sidecar = read_sidecar(dataset.prefix)
    if not sidecar:
        raise InputError(
            f"{name} has no sidecar {sidecar_path(dataset.prefix)}: its job did not finish, or it was made elsewhere"
        )
    if sidecar.get("kind") != kind:
        raise MismatchError(f"{dataset.prefix} holds {sidecar.get('kind')}, not {kind} (so says its sidecar)")
    if dataset.dtype != DTYPES[kind]:
        raise MismatchError(f"{name} holds {dataset.dtype} values; {kind} are {DTYPES[kind]}")
    if kind == PENALTIES and sidecar.get("encoding") not in ENCODINGS:
        raise InputError(f"{name} has the unknown encoding {sidecar.get('encoding')!r}; known: {', '.join(ENCODINGS)}")
    return Aligned(dataset, sidecar)


def alignment_faults(
    dataset: IndexedDataset,
    sidecar: dict[str, Any],
    tokens: IndexedDataset,
    found: Fingerprint,
    tokenizer: Record | None,
) -> list[str]:
    """Why ``dataset`` with this ``sidecar`` does not belong to ``tokens``; empty if it does.

    The lengths are compared beside the sidecar: a mask whose sidecar is right and whose documents are cut
    otherwise is off by some tokens everywhere.

    Args:
        found: fingerprint of the tokens.
        tokenizer: record of the one that they were made with, if known.
    """
    faults = differences(sidecar.get("data") or {}, found)
    if difference := tokenizer_difference(sidecar.get("tokenizer"), tokenizer):
        faults.append(f"tokenizer {difference}")
    if dataset.num_documents != tokens.num_documents:
        faults.append(f"{dataset.num_documents} documents for {tokens.num_documents}")
    else:
        other = np.flatnonzero(dataset.lengths != tokens.lengths)
        if other.size:
            first = int(other[0])
            faults.append(
                f"{other.size} documents of another length, first document {first}: "
                f"{dataset.lengths[first]} values for {tokens.lengths[first]} tokens"
            )
    return faults


def require_finite(scores: Aligned, progress: bool = False) -> None:
    """Read all scores once, in pieces, and refuse a NaN or an infinity.

    Raises:
        NumericsError: names the first offending value, its document and its offset.
    """
    total = len(scores.values)
    with Progress(total, "tokens", "check scores", quiet=not progress) as bar:
        for begin in range(0, total, _CHUNK):
            chunk = scores.values[begin : begin + _CHUNK]
            bad = np.flatnonzero(~np.isfinite(chunk))
            if bad.size:
                position = begin + int(bad[0])
                document = int(np.searchsorted(scores.starts, position, side="right")) - 1
                raise NumericsError(
                    f"scores {scores.prefix}: {chunk[bad[0]]} at document {document}, "
                    f"token {position - int(scores.starts[document])}; score the data again"
                )
            bar.update(len(chunk))


def _called(kind: str) -> str:
    """A dataset of this kind, for people."""
    return "mask" if kind == PENALTIES else kind


def _identity(like: TokenDataset | Aligned) -> dict[str, Any]:
    """The sidecar fields that say which tokens the values belong to."""
    if isinstance(like, Aligned):
        return {key: like.sidecar[key] for key in ("data", "data_prefix", "tokenizer") if key in like.sidecar}
    identity: dict[str, Any] = {"data": fingerprint(like), "data_prefix": str(Path(like.prefix).absolute())}
    tokenizer = read_sidecar(like.prefix).get("tokenizer")
    return identity | ({"tokenizer": tokenizer} if tokenizer else {})


def _write_values(
    path: Path, values: np.ndarray | Iterable[np.ndarray], dtype: np.dtype, source: IndexedDataset, binary: bool
) -> str:
    """Write all values to ``path``; returns the hash of its bytes."""
    digest, written = hashlib.blake2b(digest_size=32), 0
    with open(path, "wb") as stream:
        for piece in _pieces(values):
            if not np.can_cast(piece.dtype, dtype, casting="same_kind"):
                raise TypeError(f"{piece.dtype} values in a dataset of {dtype}")
            if binary and piece.size and piece.max() > 1:
                raise InputError(f"a binary mask holds the value {piece.max()}; only 0 and 1 are allowed")
            data = np.ascontiguousarray(piece, dtype=dtype).data
            stream.write(data)
            digest.update(data)
            written += piece.size
    if written != source.num_tokens:
        raise MismatchError(f"{written} values for the {source.num_tokens} tokens of {source.prefix}")
    return digest.hexdigest()


def _pieces(values: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    if isinstance(values, np.ndarray):
        for begin in range(0, len(values), _CHUNK):
            yield values[begin : begin + _CHUNK]
    else:
        yield from map(np.asarray, values)


def _kind_of(dtype: np.dtype) -> str:
    for kind, expected in DTYPES.items():
        if dtype == expected:
            return kind
    raise ValueError(f"an aligned dataset holds float32 scores or uint8 penalties, not {dtype}")
