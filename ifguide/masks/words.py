"""The word-list control: tokens of listed words, found in the text that the tokens spell.

Tokens are joined as bytes, because a byte-level token may hold a part of a character: the place of a
word in the text is exact whatever the tokenizer cut.

Shapes: T tokens of one document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.text.tokenizers import Tokenizer
from ifguide.errors import InputError
from ifguide.selection import Source
from ifguide.system.provenance import file_record
from ifguide.system.text_files import read_text


@dataclass(frozen=True)
class WordList:
    """Words to look for, and the tokenizer that spells the tokens.

    Attributes:
        words: words or phrases; case does not matter, and only whole words count.
        tokenizer: that the data was made with.
        record: what the sidecar says about the files.
    """

    words: tuple[str, ...]
    tokenizer: Tokenizer
    record: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path, tokenizer: Tokenizer, tokenizer_files: Sequence[str | Path]) -> WordList:
        """One word or phrase a line; blank lines and lines that start with # do not count.

        Raises:
            InputError: the file cannot be read, or has no word.
        """
        lines = read_text(path, "word list").splitlines()
        words = tuple(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))
        if not words:
            raise InputError(f"word list {path} has no word; write one a line")
        record = {
            "inputs": [file_record(path)],
            "tokenizer_files": [file_record(file) for file in tokenizer_files],
        }
        return cls(words, tokenizer, record)

    def finder(self) -> Callable[[NDArray[np.integer]], NDArray[np.int64]]:
        """A function that gives the ascending places of the tokens of listed words among a document's ids [T]."""
        pieces = [self.tokenizer.token_bytes(index) for index in range(self.tokenizer.vocab_size)]
        longest_first = sorted(self.words, key=len, reverse=True)
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)

        def find(ids: NDArray[np.integer]) -> NDArray[np.int64]:
            spelled = [pieces[index] if index < len(pieces) else b"" for index in ids.tolist()]
            # surrogates stand for bytes that are no text, so characters and bytes can be counted both ways
            text = b"".join(spelled).decode("utf-8", "surrogateescape")
            matches = list(pattern.finditer(text))
            if not matches:
                return np.zeros(0, np.int64)
            ends = np.cumsum([len(piece) for piece in spelled])
            found = np.zeros(len(ids), bool)
            for match in matches:
                begin = len(text[: match.start()].encode("utf-8", "surrogateescape"))
                stop = begin + len(match.group().encode("utf-8", "surrogateescape"))
                first = int(np.searchsorted(ends, begin, side="right"))
                last = int(np.searchsorted(ends, stop, side="left"))
                found[first : last + 1] = True
            return np.flatnonzero(found)

        return find


def word_positions(source: Source, words: WordList, count: int, seed: int) -> NDArray[np.int64]:
    """Global positions of ``count`` tokens of listed words, or of all if there are fewer: ascending int64.

    Documents come in an order shuffled by ``seed``; the last one gives its first tokens, so that the control
    has exactly the size of what it is compared with.
    """
    find = words.finder()
    positions: list[NDArray[np.int64]] = []
    missing = count
    for document in np.random.default_rng(seed).permutation(len(source.starts) - 1):
        if missing <= 0:
            break
        ids, eod = source.document(int(document))
        found = find(ids)
        if eod is not None:
            found = found[ids[found] != eod]
        positions.append(found[:missing] + source.starts[document])
        missing -= len(positions[-1])
    return np.sort(np.concatenate([np.zeros(0, np.int64), *positions]))
