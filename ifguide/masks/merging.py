"""Masks or scores of several corpora -> those of the merged corpus, beside GPT-NeoX's ``merge_datasets.py``.

NeoX's tool takes the datasets of a folder in the order of their names, appends lengths and values, and leaves a
``doc_idx`` of a single 0. So the merged tokens hold the parts one after another, and each part is found again
by its own content hash: nothing but the merged tokens and the parts' sidecars has to be there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned, load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES
from ifguide.errors import ConfigError, InputError, MismatchError
from ifguide.selection.source import CHUNK_TOKENS, read_values
from ifguide.system.files import folder_faults, hash_value
from ifguide.system.progress import Progress
from ifguide.system.provenance import origin

_ORDER = "give the parts in the order in which the tokens were merged (GPT-NeoX: by file name)"
# what a reader of the parts' sidecars may ask for later
_KEPT = ("encoding", "parameters", "threshold", "counts", "run", "eod", "command", "folder")


def merge_masks(
    prefixes: Sequence[str | Path],
    output: str | Path,
    data_prefix: str | Path,
    kind: str = PENALTIES,
    convert_binary: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write ``output.{bin,idx,json}``: the values of all parts, aligned with the merged tokens ``data_prefix``.

    Args:
        prefixes: two or more masks (or scores), in the order in which their tokens were merged.
        kind: ``penalties`` or ``scores``.
        convert_binary: where binary and graded masks meet, write graded and turn 1 into 255, the full strength.

    Returns:
        ``output``, ``parts``, ``documents``, ``tokens``, ``seconds``; for masks ``encoding`` and ``selected``.

    Raises:
        InputError: files that cannot be used, or masks of both encodings.
        MismatchError: the merged tokens are not those of the parts in this order; names the part.
    """
    started = time.monotonic()
    if len(prefixes) < 2:
        raise InputError("there is nothing to merge: name two or more")
    if faults := folder_faults("--output", output):
        raise ConfigError(faults)
    if Path(output).absolute() in [Path(prefix).absolute() for prefix in [*prefixes, data_prefix]]:
        raise InputError(f"--output {output} is the name of an input; choose another")
    tokens = TokenDataset.open(data_prefix)
    parts = [load_aligned(prefix, None, kind) for prefix in prefixes]
    if cascades := [part.prefix for part in parts if "cascade" in part.sidecar]:
        raise InputError(
            f"{', '.join(map(str, cascades))}: a cascade's scores are exact only where its own corpus can make a mask, "
            "so a merged file would hide which are a proxy's; build the masks of the parts (build-mask takes all their "
            "scores at once) and merge those"
        )
    encoding = _encoding(parts, convert_binary) if kind == PENALTIES else None
    _check_shape(parts, tokens)
    _check_content(parts, tokens, quiet)
    converted = [encoding == "graded" and part.sidecar.get("encoding") == "binary" for part in parts]
    sources = [
        {
            "prefix": str(Path(part.prefix).absolute()),
            "fingerprint": part.sidecar["fingerprint"],
            **{key: part.sidecar[key] for key in _KEPT if key in part.sidecar},
        }
        for part in parts
    ]
    fingerprints = [part.sidecar["fingerprint"] for part in parts]
    parameters = {"method": "merge", "convert_binary": convert_binary}
    sidecar: dict[str, Any] = {
        "parameters": parameters,
        "parts": sources,
        "identity": hash_value([parameters, fingerprints]),
        **origin(),
    }
    result = {
        "output": str(output),
        "parts": len(parts),
        "documents": tokens.num_documents,
        "tokens": tokens.num_tokens,
    }
    if kind == PENALTIES:
        selected = sum(int(np.count_nonzero(values)) for values in _values(parts, converted))
        sidecar |= {"encoding": encoding, "counts": {"tokens": tokens.num_tokens, "selected": selected}}
        result |= {"encoding": encoding, "selected": selected, "fraction": selected / tokens.num_tokens}
    elif all("eod" in part.sidecar and part.sidecar["eod"] == parts[0].sidecar["eod"] for part in parts):
        sidecar["eod"] = parts[0].sidecar["eod"]
    with Progress(tokens.num_tokens, "tokens", "merge", quiet=quiet) as progress:
        pieces = _told(_values(parts, converted), progress)
        write_aligned(output, tokens, pieces, parts[0].values.dtype, sidecar)
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def _encoding(parts: Sequence[Aligned], convert_binary: bool) -> str:
    encodings = [part.sidecar["encoding"] for part in parts]
    if len(set(encodings)) == 1:
        return encodings[0]
    if convert_binary:
        return "graded"
    names = ", ".join(f"{part.prefix} {encoding}" for part, encoding in zip(parts, encodings))
    raise InputError(
        f"the masks have different encodings ({names}); build them alike, or turn 1 into 255 with --convert-binary"
    )


def _check_shape(parts: Sequence[Aligned], tokens: TokenDataset) -> None:
    """
    Raises:
        MismatchError: other documents than those of the parts, in their order.
    """
    documents = sum(part.dataset.num_documents for part in parts)
    if documents != tokens.num_documents:
        raise MismatchError(
            f"{tokens.prefix} has {tokens.num_documents} documents, the {len(parts)} parts together {documents}; "
            "name every part once"
        )
    first = 0
    for part in parts:
        here = tokens.lengths[first : first + part.dataset.num_documents]
        other = np.flatnonzero(here != part.dataset.lengths)
        if other.size:
            at = int(other[0])
            raise MismatchError(
                f"document {first + at} of {tokens.prefix} has {here[at]} tokens, document {at} of {part.prefix} "
                f"{part.dataset.lengths[at]} values; {_ORDER}"
            )
        first += len(here)


def _check_content(parts: Sequence[Aligned], tokens: TokenDataset, quiet: bool) -> None:
    """
    Raises:
        MismatchError: a stretch of the merged tokens is not what the part's values were made for.
    """
    begin = 0
    with Progress(tokens.num_tokens, "tokens", "check merged tokens", quiet=quiet) as progress:
        for part in parts:
            data = part.sidecar.get("data") or {}
            end, digest = begin + part.dataset.num_tokens, hashlib.blake2b(digest_size=32)
            for at in range(begin, end, CHUNK_TOKENS):
                piece = read_values(tokens.tokens, at, min(at + CHUNK_TOKENS, end))
                digest.update(piece.data)
                progress.update(len(piece))
            if data.get("dtype") != tokens.dtype.name or data.get("content_hash") != digest.hexdigest():
                raise MismatchError(
                    f"tokens {begin} to {end} of {tokens.prefix} are not those that {part.prefix} was made for "
                    f"({part.sidecar.get('data_prefix')}, {data.get('dtype')}); {_ORDER}"
                )
            begin = end


def _values(parts: Sequence[Aligned], converted: Sequence[bool]) -> Iterator[NDArray]:
    for part, convert in zip(parts, converted):
        for begin in range(0, len(part.values), CHUNK_TOKENS):
            values = read_values(part.values, begin, min(begin + CHUNK_TOKENS, len(part.values)))
            yield values * np.uint8(255) if convert else values


def _told(pieces: Iterator[NDArray], progress: Progress) -> Iterator[NDArray]:
    for piece in pieces:
        yield piece
        progress.update(len(piece))
