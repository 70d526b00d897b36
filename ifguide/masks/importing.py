"""Adopting a mask made elsewhere: a uint8 indexed dataset gets the sidecar that says which tokens it belongs to."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import ENCODINGS
from ifguide.data.fingerprint import fingerprint, make_fingerprint
from ifguide.data.indexed import IndexedDataset, TokenDataset
from ifguide.data.sidecar import FORMAT_VERSION, PENALTIES, file_states, read_sidecar, sidecar_path
from ifguide.errors import InputError, MismatchError
from ifguide.selection.source import CHUNK_TOKENS, read_values
from ifguide.system.files import hash_value, write_json
from ifguide.system.progress import Progress
from ifguide.system.provenance import origin, versions

METHOD = "import"


def import_mask(
    data_prefix: str | Path,
    mask_prefix: str | Path,
    encoding: str | None = None,
    quiet: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Check that ``mask_prefix`` holds one code for every token of ``data_prefix`` and write its sidecar.

    The two files stay as they are. The groups of sequences (``doc_idx``) may differ: they are never read.

    Args:
        encoding: ``binary`` (codes 0 and 1) or ``graded`` (strength = code / 255); None: ``binary`` if no
            code is above 1, else a fault, for a mask of 0 and 255 may mean either.
        overwrite: replace a sidecar that says the mask came from elsewhere.

    Returns:
        ``output``, ``encoding``, ``tokens``, ``documents``, ``selected``, ``fraction``, ``codes`` (how often each
        code above 0 occurs), ``seconds``.

    Raises:
        InputError: files that cannot be used, or codes that the encoding does not have.
        MismatchError: other documents than those of the tokens; names the first that differs.
    """
    started = time.monotonic()
    if encoding is not None and encoding not in ENCODINGS:
        raise InputError(f"unknown encoding '{encoding}'; one of {', '.join(ENCODINGS)}")
    tokens, mask = TokenDataset.open(data_prefix), IndexedDataset.open(mask_prefix)
    _check_shape(mask, tokens)
    known = read_sidecar(mask.prefix)
    if known and not overwrite and (known.get("parameters") or {}).get("method") != METHOD:
        raise InputError(
            f"{sidecar_path(mask.prefix)} exists, and says where the mask came from; "
            "remove it first if the files are no longer what it describes"
        )
    states = file_states(mask.index_path, mask.bin_path)
    counts, content_hash = _count(mask, quiet)
    encoding = _encoding(mask, counts, encoding)
    selected = int(counts[1:].sum())
    data = fingerprint(tokens, progress=not quiet)
    found = make_fingerprint(mask.dtype, mask.lengths, mask.doc_idx, content_hash)
    parameters = {"method": METHOD}
    tokenizer = read_sidecar(tokens.prefix).get("tokenizer")
    sidecar = {
        "format_version": FORMAT_VERSION,
        "kind": PENALTIES,
        "encoding": encoding,
        "parameters": parameters,
        "counts": {"tokens": mask.num_tokens, "selected": selected},
        "identity": hash_value([parameters, encoding, found, data]),
        "data": data,
        "data_prefix": str(Path(tokens.prefix).absolute()),
        **({"tokenizer": tokenizer} if tokenizer else {}),
        "fingerprint": found,
        "files": states,
        "tool": versions(),
        **origin(),
    }
    write_json(sidecar_path(mask.prefix), sidecar)
    return {
        "output": mask.prefix,
        "encoding": encoding,
        "documents": mask.num_documents,
        "tokens": mask.num_tokens,
        "selected": selected,
        "fraction": selected / mask.num_tokens,
        "codes": {str(code): int(counts[code]) for code in np.flatnonzero(counts) if code},
        "seconds": round(time.monotonic() - started, 3),
    }


def _check_shape(mask: IndexedDataset, tokens: TokenDataset) -> None:
    if mask.bin_path.resolve() == tokens.bin_path.resolve():
        raise InputError(f"--mask and --data both name {mask.prefix}; name the mask and its tokens")
    if mask.dtype != np.uint8:
        raise MismatchError(f"{mask.prefix} holds {mask.dtype} values; a mask holds one uint8 code for each token")
    if mask.num_documents != tokens.num_documents:
        raise MismatchError(
            f"mask {mask.prefix} has {mask.num_documents} documents, {tokens.prefix} has {tokens.num_documents}; "
            "a mask has the documents of its tokens"
        )
    other = np.flatnonzero(mask.lengths != tokens.lengths)
    if other.size:
        first = int(other[0])
        raise MismatchError(
            f"{other.size} documents of mask {mask.prefix} have another length than those of {tokens.prefix}, the "
            f"first is document {first}: {mask.lengths[first]} codes for {tokens.lengths[first]} tokens"
        )


def _count(mask: IndexedDataset, quiet: bool) -> tuple[NDArray[np.int64], str]:
    """(how often each code occurs int64[256], hash of the codes), in one pass."""
    digest, counts = hashlib.blake2b(digest_size=32), np.zeros(256, np.int64)
    with Progress(mask.num_tokens, "tokens", "read mask", quiet=quiet) as progress:
        for begin in range(0, mask.num_tokens, CHUNK_TOKENS):
            codes = read_values(mask.values, begin, min(begin + CHUNK_TOKENS, mask.num_tokens))
            counts += np.bincount(codes, minlength=256)
            digest.update(codes.data)
            progress.update(len(codes))
    return counts, digest.hexdigest()


def _encoding(mask: IndexedDataset, counts: NDArray[np.int64], encoding: str | None) -> str:
    """The encoding asked for, or the one that the codes show.

    Raises:
        InputError: codes above 1 in a mask that is, or may be, binary.
    """
    above = int(counts[2:].sum())
    if encoding == "graded" or not above:
        return encoding or "binary"
    begin = 0
    while not (codes := read_values(mask.values, begin, min(begin + CHUNK_TOKENS, mask.num_tokens))).max() > 1:
        begin += CHUNK_TOKENS
    at = begin + int(np.argmax(codes > 1))
    document = int(np.searchsorted(mask.starts, at, side="right")) - 1
    raise InputError(
        f"mask {mask.prefix} holds {above} codes above 1, the first ({mask.values[at]}) in document {document}, token "
        f"{at - int(mask.starts[document])}: not a binary mask; with --encoding graded 255 is the full strength"
    )
