"""Spans of a dataset (lines, sentences, or pieces of W tokens), with what masks select in each, in one pass.

End-of-document tokens belong to no span: they are neither counted nor counted as selected.

Shapes: P spans of some documents, M masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.passages.boundaries import document_groups, find_boundaries, read_tokens
from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError
from ifguide.selection import PassageSettings
from ifguide.selection.settings import WINDOW
from ifguide.selection.source import read_values
from ifguide.system.progress import Progress

_CHUNK_TOKENS = 1 << 18


@dataclass(frozen=True, eq=False)
class Spans:
    """The spans of some whole documents, ascending.

    Attributes:
        documents: int64[P], the document of each.
        begins, ends: int64[P], positions in the dataset of its first token and after its last.
        sizes: int64[P], its tokens without EOD, at least one.
        selected: int64[M, P], those of them that each mask selects.
    """

    documents: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    selected: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.begins)

    def take(self, which: NDArray | slice) -> Spans:
        """Those of these places, or where this is true."""
        return Spans(
            self.documents[which], self.begins[which], self.ends[which], self.sizes[which], self.selected[:, which]
        )

    @classmethod
    def join(cls, parts: Sequence[Spans]) -> Spans:
        """Those of all ``parts``, one after the other."""
        return cls(
            np.concatenate([part.documents for part in parts]),
            np.concatenate([part.begins for part in parts]),
            np.concatenate([part.ends for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.selected for part in parts], axis=1),
        )


def parse_span(text: str) -> PassageSettings:
    """Of ``line``, ``sentence`` or ``window:W``, pieces of W tokens.

    Raises:
        InputError: none of them, or pieces of no tokens.
    """
    try:
        span = PassageSettings.parse(text)
    except InputError as error:
        raise InputError(str(error).replace("token, ", "")) from None
    if span.kind == WINDOW and not span.radius:
        raise InputError("--span window:0: pieces of no tokens have no text; give window:1 or more")
    return span


class SpanWalk:
    """The spans of a dataset, as often as they are asked for.

    Args:
        tokens: the dataset.
        masks: of its tokens.
        span: what a span is.
        reader: that the data was made with; boundaries are made with it where there are none.

    Raises:
        InputError: boundaries that cannot be written beside the data.
    """

    def __init__(
        self, tokens: TokenDataset, masks: Sequence[Aligned], span: PassageSettings, reader: TextReader,
        quiet: bool = True,
    ):  # fmt: skip
        self.tokens, self.masks, self.reader = tokens, masks, reader
        self._span, self._quiet = span, quiet
        self._marks = None if span.kind == WINDOW else find_boundaries(tokens, lambda _: reader, quiet).values

    def __call__(self, what: str) -> Iterator[tuple[Spans, NDArray[np.integer], int]]:
        """(spans, ids of all tokens of their documents, the position of the first of these), some documents at a time.

        Args:
            what: the progress bar calls it.
        """
        all_starts = self.tokens.starts
        with Progress(self.tokens.num_tokens, "tokens", what, quiet=self._quiet) as progress:
            for first, last in document_groups(all_starts, _CHUNK_TOKENS):
                starts = all_starts[first : last + 1]
                begin, end = int(starts[0]), int(starts[-1])
                if begin < end:
                    ids = read_tokens(self.tokens, begin, end)
                    yield self._cut(ids, starts, first), ids, begin
                progress.update(end - begin)

    def _cut(self, ids: NDArray[np.integer], starts: NDArray[np.int64], first: int) -> Spans:
        begin, end = int(starts[0]), int(starts[-1])
        if self._marks is None:
            place = np.arange(begin, end) - np.repeat(starts[:-1], np.diff(starts))
            is_end = place % self._span.radius == self._span.radius - 1
        else:
            is_end = (read_values(self._marks, begin, end) & self._span.end_bit).astype(bool)
        is_end[starts[1:][starts[1:] > begin] - begin - 1] = True
        number, count = np.cumsum(is_end) - is_end, int(is_end.sum())
        counted = np.ones(len(ids), bool) if self.reader.eod is None else ids != self.reader.eod
        taken = [(read_values(mask.values, begin, end) > 0) & counted for mask in self.masks]
        ends = np.flatnonzero(is_end) + 1 + begin
        begins = np.concatenate([[begin], ends[:-1]])
        spans = Spans(
            np.searchsorted(starts, begins, side="right") - 1 + first, begins, ends,
            np.bincount(number[counted], minlength=count),
            np.array([np.bincount(number[one], minlength=count) for one in taken]).reshape(len(taken), count),
        )  # fmt: skip
        return spans.take(spans.sizes > 0)
