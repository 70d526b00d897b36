"""The tokenizer that a command line names: its options, and its folder, read the same way by every verb."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifguide.config.options import option
from ifguide.data.text.content import DEFAULT_TYPE, FOLDER_FILES, carried, files_in, type_meant
from ifguide.errors import InputError

if TYPE_CHECKING:
    from ifguide.data.text.reader import TextReader

TOKENIZER_OPTIONS = ("tokenizer_type", "vocab_file", "merge_file")
IF_UNKNOWN = dict.fromkeys(TOKENIZER_OPTIONS, "if the data does not record its tokenizer, or its files moved")
"""Texts of `NamedTokenizer` for a verb that asks the data first."""
_VOCABULARY = "vocab_file"
# options that name the data whose tokenizer is meant, or what is aligned with it and repeats its record
_DATA = ("data", "scores", "mask", "category", "combine")


@dataclass(frozen=True)
class NamedTokenizer:
    """The options that name the tokenizer of data."""

    tokenizer_type: str | None = option(
        None, metavar="TYPE", help="as for preprocess (default: what the data records)"
    )  # fmt: skip
    vocab_file: str | None = option(None, metavar="FILE", kind="input", help="of the tokenizer")
    merge_file: str | None = option(None, metavar="FILE", kind="input", help="of a GPT2BPETokenizer")

    def reader_of(self, data: str) -> TextReader:
        """
        Raises:
            InputError: neither these options nor the sidecar of ``data`` say which.
            MismatchError: the data was made with another one.
        """
        from ifguide.data.text.reader import TextReader

        return TextReader.of_data(data, self.tokenizer_type, self.vocab_file, self.merge_file)


def name_tokenizer_files(args: argparse.Namespace) -> None:
    """Put a tokenizer's files in the place of the folder that holds them, before all of that folder is hashed.

    Where the type is not named, `type_meant` says it. It is put into ``args`` too where a verb that is given the file
    alone would take it for one of another type.
    """
    for name in [name for name in vars(args) if name.endswith(_VOCABULARY)]:
        folder, prefix = getattr(args, name), name.removesuffix(_VOCABULARY)
        if not folder or not Path(folder).is_dir():
            continue
        types = next(one for one in (f"{prefix}tokenizer_type", f"{prefix}tokenizer") if hasattr(args, one))
        merges = f"{prefix}merge_file"
        kind = getattr(args, types)
        if not kind:
            recorded, found = _recorded_type(args, prefix), carried(folder)
            kind = type_meant(None, folder, recorded)
            if kind in found and {kind, recorded or kind} != {DEFAULT_TYPE}:
                setattr(args, types, kind)
            if kind not in dict(FOLDER_FILES):  # a type without files; what is hashed is not the weights beside them
                kind = next(iter(found), kind)
        for where, file in zip((name, merges), files_in(kind, folder, getattr(args, merges, None))):
            if hasattr(args, where):
                setattr(args, where, file)


def _recorded_type(args: argparse.Namespace, prefix: str) -> str | None:
    """The type that the data records; None where no data is named, or it records none."""
    from ifguide.data.text.record import recorded_tokenizer

    for name in ("to_data",) if prefix == "to_" else _DATA:
        for path in _words(getattr(args, name, None)):
            try:
                kind = recorded_tokenizer(path).get("type")
            except InputError:  # the verb says what is wrong with it
                continue
            if kind is not None:
                return str(kind)
    return None


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, (str, Path)):
        yield str(value)
    elif isinstance(value, list):
        for one in value:
            yield from _words(one)
