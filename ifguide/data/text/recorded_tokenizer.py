"""The tokenizer that a dataset was made with: as its sidecar records it, or as the user names it."""

from __future__ import annotations

from pathlib import Path

from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import Tokenizer


def find_tokenizer(
    data: str | Path,
    tokenizer_type: str | None,
    vocab_file: str | Path | None,
    merge_file: str | Path | None,
    options: str = "--",
) -> Tokenizer:
    """The tokenizer that was named, or the one that the sidecar of ``data`` records, with the separator of ``data``.

    Args:
        options: what the names of the options start with that name it, for messages.

    Raises:
        InputError: neither says which.
        MismatchError: the data was made with another one.
    """
    return TextReader.of_data(data, tokenizer_type, vocab_file, merge_file, options=options).tokenizer
