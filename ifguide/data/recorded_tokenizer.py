"""The tokenizer that a dataset was made with: as its sidecar records it, or as the user names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ifguide.data.sidecar import read_sidecar
from ifguide.data.tokenizers import Tokenizer, build_tokenizer
from ifguide.errors import InputError, MismatchError


def find_tokenizer(
    data: str | Path,
    tokenizer_type: str | None,
    vocab_file: str | Path | None,
    merge_file: str | Path | None,
    options: str = "--",
) -> Tokenizer:
    """The tokenizer that was named, or the one that the sidecar of ``data`` records.

    Args:
        options: what the names of the options start with that name it, for messages.

    Raises:
        InputError: neither says which.
        MismatchError: the data was made with another one.
    """
    sidecar = read_sidecar(data)
    recorded = sidecar.get("tokenizer") or {}
    if tokenizer_type:
        tokenizer = build_tokenizer(tokenizer_type, vocab_file, merge_file, options)
    elif "type" not in recorded:
        raise InputError(
            f"{data} does not record its tokenizer; name it with {options}tokenizer-type and {options}vocab-file"
        )
    else:
        paths: list[Any] = [record["path"] for record in sidecar.get("tokenizer_files", [])] + [None, None]
        vocab_file, merge_file = vocab_file or paths[0], merge_file or paths[1]
        for option, path in (("vocab-file", vocab_file), ("merge-file", merge_file)):
            if path and not Path(path).is_file():
                raise InputError(f"tokenizer file {path} of {data} is gone; say where it is with {options}{option}")
        tokenizer = build_tokenizer(recorded["type"], vocab_file, merge_file, options)
    expected = recorded.get("identity")
    if expected and expected != tokenizer.identity:
        raise MismatchError(
            f"{data} was made with another tokenizer ({expected[:12]}) than this one ({tokenizer.identity[:12]})"
        )
    return tokenizer
