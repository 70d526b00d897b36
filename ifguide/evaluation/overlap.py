"""Whether a text overlaps the texts of an evaluation, word by word after normalising.

Normalised: Unicode NFKC, case folded, words only (letters and digits). Two texts overlap if their words are the same,
or if one holds the words of the other, in order and without a gap, and that one has at least four words: fewer, such
as "The man was", occur everywhere.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable

from ifguide.data.sources.reading import read_rows
from ifguide.errors import ConfigError, first_faults

_WORD = re.compile(r"[^\W_]+")
_SHORTEST_INSIDE = 4


def words_of(text: str) -> tuple[str, ...]:
    """The normalised words of ``text``."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


class Overlap:
    """The texts to stay away from.

    Args:
        texts: prompts (and longer texts) of an evaluation.
    """

    def __init__(self, texts: Iterable[str]):
        self._texts = {words for text in texts if (words := words_of(text))}
        self._lengths = sorted({len(words) for words in self._texts if len(words) >= _SHORTEST_INSIDE})
        self._parts: dict[int, set[tuple[str, ...]]] = {}

    def __len__(self) -> int:
        """Distinct normalised texts."""
        return len(self._texts)

    def with_query(self, prompt: str, completion: str) -> bool:
        """Whether the query's prompt is one of the texts, or lies in one, or one lies in the whole query."""
        start, whole = words_of(prompt), words_of(prompt + completion)
        if start in self._texts or whole in self._texts:
            return True
        if any(part in self._texts for length in self._lengths for part in _windows(whole, length)):
            return True
        return len(start) >= _SHORTEST_INSIDE and start in self._of_length(len(start))

    def _of_length(self, length: int) -> set[tuple[str, ...]]:
        if length not in self._parts:
            self._parts[length] = {part for words in self._texts for part in _windows(words, length)}
        return self._parts[length]


def evaluation_texts(path: str | os.PathLike) -> list[str]:
    """The texts of an evaluation file: JSONL with "prompt" or "text".

    Raises:
        InputError: missing, or not JSONL.
        ConfigError: lines without a text; all of them at once.
    """
    texts, faults = [], []
    for place, row in read_rows(path, "evaluation file"):
        found = row.get("prompt", row.get("text"))
        found = found.get("text") if isinstance(found, dict) else found
        if isinstance(found, str):
            texts.append(found)
        else:
            faults.append(place.message("evaluation file", 'needs a "prompt" or a "text" that is text'))
    if faults:
        raise ConfigError(first_faults(faults))
    return texts


def _windows(words: tuple[str, ...], length: int) -> Iterable[tuple[str, ...]]:
    return (words[start : start + length] for start in range(len(words) - length + 1))
