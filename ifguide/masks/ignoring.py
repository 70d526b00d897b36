"""Tokens that a pattern names, such as HTML entities: they count for nothing.

The pattern is looked for in the text that a document's tokens spell; a token that holds any byte of a match is ignored.

Shapes: N tokens of a corpus.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.data.indexed import TokenDataset
from ifguide.data.passages.boundaries import document_groups, read_tokens
from ifguide.data.passages.cutting import TokenText
from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError
from ifguide.system.progress import Progress

HTML_ENTITIES = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_CHUNK_TOKENS = 1 << 18


@dataclass(frozen=True)
class Ignoring:
    """What is ignored.

    Attributes:
        pattern: a regular expression of Python's `re`.
        reader_of: the text reader of a dataset.
    """

    pattern: str = HTML_ENTITIES
    reader_of: Callable[[str], TextReader] = TextReader.of_data

    def compiled(self) -> re.Pattern[str]:
        """
        Raises:
            InputError: no regular expression, or one that matches the empty text.
        """
        try:
            found = re.compile(self.pattern)
        except re.error as error:
            raise InputError(f"--ignore-pattern {self.pattern}: no regular expression ({error})") from None
        if found.match(""):
            raise InputError(f"--ignore-pattern {self.pattern}: matches the empty text; say what it has to hold")
        return found

    def tokens_of(self, tokens: TokenDataset, quiet: bool = True) -> NDArray[np.uint8]:
        """A bit for each token that is ignored, uint8[⌈N / 8⌉] as `numpy.packbits` lays them.

        Raises:
            InputError: the tokenizer cannot be found.
        """
        pattern = self.compiled()
        text = TokenText(self.reader_of(tokens.prefix))
        bits = np.zeros(-(-tokens.num_tokens // 8), np.uint8)
        with Progress(tokens.num_tokens, "tokens", "find what to ignore", quiet=quiet) as progress:
            for first, last in document_groups(tokens.starts, _CHUNK_TOKENS):
                starts = tokens.starts[first : last + 1]
                ids = read_tokens(tokens, int(starts[0]), int(starts[-1]))
                at = _matched(ids, starts - starts[0], text, pattern) + int(starts[0])
                np.bitwise_or.at(bits, at >> 3, (128 >> (at & 7)).astype(np.uint8))
                progress.update(len(ids))
        return bits


def _matched(
    ids: NDArray[np.integer], starts: NDArray[np.int64], text: TokenText, pattern: re.Pattern[str]
) -> NDArray[np.int64]:
    """Places of the tokens that hold a byte of a match."""
    spelled, ends = text.spell(ids)
    bounds = np.concatenate([[0], ends])[starts].tolist()
    steps = np.zeros(len(ids) + 1, np.int64)
    for begin, end in itertools.pairwise(bounds):
        # surrogates stand for bytes that are no text, so characters and bytes can be counted both ways
        document = spelled[begin:end].decode("utf-8", "surrogateescape")
        spans = np.array([match.span() for match in pattern.finditer(document)], np.int64).reshape(-1, 2)
        if not len(spans):
            continue
        if len(document) != end - begin:
            spans = _byte_offsets(document)[spans]
        first = np.searchsorted(ends, spans[:, 0] + begin, side="right")
        last = np.searchsorted(ends, spans[:, 1] + begin, side="left")
        np.add.at(steps, first, 1)
        np.add.at(steps, last + 1, -1)
    return np.flatnonzero(np.cumsum(steps[:-1]) > 0)


def _byte_offsets(document: str) -> NDArray[np.int64]:
    """Where each character begins, and the text ends, in the bytes."""
    codes = np.frombuffer(document.encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    sizes[(codes >= 0xDC80) & (codes <= 0xDCFF)] = 1
    return np.concatenate([[0], np.cumsum(sizes)])
