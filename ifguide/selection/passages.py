"""Lines, sentences and windows, scored from their tokens chunk by chunk (M3b).

The score of a passage is Σs / (n + κ) over its n eligible tokens, added up in float64 in token order, so that it does
not depend on the chunks. A passage ends with a boundary or with its document.

Shapes: P passages, S tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.quantile import refuse_non_finite
from ifguide.selection.settings import WINDOW, PassageSettings
from ifguide.selection.source import Source, Span, read_values


@dataclass(frozen=True, eq=False)
class Passages:
    """Some passages, ascending by position.

    Attributes:
        begins: int64[P], global position of the first token.
        scores: float64[P].
        sizes: int64[P], eligible tokens; None where each has one.
        lengths: int64[P], all tokens; None where each has one.
    """

    begins: NDArray[np.int64]
    scores: NDArray[np.float64]
    sizes: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.begins)

    def take(self, which: NDArray) -> Passages:
        """Those of these places, or where this is true."""
        return Passages(
            self.begins[which],
            self.scores[which],
            None if self.sizes is None else self.sizes[which],
            None if self.lengths is None else self.lengths[which],
        )

    def with_scores(self, scores: NDArray[np.float64]) -> Passages:
        return Passages(self.begins, scores, self.sizes, self.lengths)

    @property
    def ends(self) -> NDArray[np.int64]:
        """int64[P], global position after the last token."""
        return self.begins + (1 if self.lengths is None else self.lengths)

    @property
    def num_tokens(self) -> int:
        """Eligible tokens of all."""
        return len(self) if self.sizes is None else int(self.sizes.sum())

    @classmethod
    def join(cls, parts: list[Passages]) -> Passages:
        if not parts:
            return cls(np.zeros(0, np.int64), np.zeros(0))

        def joined(arrays: list[NDArray | None]) -> NDArray | None:
            given = [array for array in arrays if array is not None]
            return np.concatenate(given) if given else None

        return cls(
            np.concatenate([part.begins for part in parts]),
            np.concatenate([part.scores for part in parts]),
            joined([part.sizes for part in parts]),
            joined([part.lengths for part in parts]),
        )


@dataclass
class Tally:
    """What a scan met.

    Attributes:
        ranked: passages that can be ranked.
        short: passages that are left out because they have too few tokens.
    """

    ranked: int = 0
    short: int = 0


def scan(
    source: Source,
    settings: PassageSettings,
    tally: Tally | None = None,
    on_span: Callable[[Span], object] = lambda span: None,
) -> Iterator[Passages]:
    """The passages that can be ranked, those that end in one chunk at a time: the same pieces for every source of the
    same corpora.

    Raises:
        NumericsError: a score is NaN or infinite; names the document and the token.
    """
    tally = tally or Tally()
    pieces = _windows(source, settings) if settings.kind == WINDOW else _cut(source, settings)
    for span, found in pieces:
        enough = np.ones(len(found), bool) if found.sizes is None else found.sizes >= settings.fewest
        if found.sizes is not None:
            tally.short += int(np.count_nonzero((found.sizes > 0) & ~enough))
        found = found if enough.all() else found.take(enough)
        tally.ranked += len(found)
        on_span(span)
        yield found


def _finite_scores(source: Source, span: Span) -> NDArray[np.float32]:
    values = source.scores(span)
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        refuse_non_finite(source, span, values)
    return values


def _cut(source: Source, settings: PassageSettings) -> Iterator[tuple[Span, Passages]]:
    """Lines or sentences; one that no chunk ends is carried into the next."""
    bit, shrink = np.uint8(settings.end_bit), settings.shrink
    begin, total, size = 0, 0.0, 0  # of the passage that is open
    for span in source.spans():
        values = _finite_scores(source, span)
        is_end = (source.boundaries(span) & bit).astype(bool)
        first, last = np.searchsorted(source.starts, [span.offset, span.offset + len(span)], side="right")
        is_end[source.starts[first:last] - span.offset - 1] = True
        ends = np.flatnonzero(is_end)
        number = np.cumsum(is_end) - is_end  # of each token, its passage in this chunk
        eligible = source.is_eligible(span)
        if eligible is not None and not eligible.all():
            number, values = number[eligible], values[eligible]
        # the open passage's sum goes first, so that its tokens are added in their order
        sums = np.bincount(np.append(0, number), np.append(total, values.astype(np.float64)), len(ends) + 1)
        sizes = np.bincount(number, minlength=len(ends) + 1)
        sizes[0] += size
        begins = np.append(begin, ends + 1 + span.offset)
        found = slice(0, len(ends))
        n = sizes[found]
        scores = np.divide(sums[found], n + shrink, out=np.zeros(len(ends)), where=n > 0)
        yield span, Passages(begins[found], scores, n, np.diff(begins))
        begin, total, size = int(begins[-1]), float(sums[-1]), int(sizes[-1])


def _windows(source: Source, settings: PassageSettings) -> Iterator[tuple[Span, Passages]]:
    """Every eligible token with the score of the window around it."""
    radius, shrink = settings.radius, settings.shrink
    for span in source.spans():
        _finite_scores(source, span)
        corpus = source.corpora[span.corpus]
        low, high = max(0, span.begin - radius), min(int(corpus.starts[-1]), span.end + radius)
        values = read_values(corpus.scores, low, high).astype(np.float64)
        counted = np.ones(len(values), np.int64)
        left_out = source.left_out(span.corpus, low, high)
        if left_out is not None:
            values[left_out], counted[left_out] = 0, 0
        at = np.arange(span.begin, span.end)
        before, behind = np.searchsorted(corpus.starts, [span.begin, span.end], side="right")
        starts = corpus.starts[before - 1 : behind + 1]
        document = np.searchsorted(starts, at, side="right") - 1
        first, last = starts[document], starts[document + 1] - 1
        sums, n = np.zeros(len(at)), np.zeros(len(at), np.int64)
        reach = min(radius, int((last - first).max()))
        for shift in range(-reach, reach + 1):
            inside = (first <= at + shift) if shift < 0 else (at + shift <= last)
            begin = span.begin + shift - low
            # what lies beyond the corpus is beyond the document too
            cut = slice(max(0, -begin), len(at) - max(0, begin + len(at) - len(values)))
            if cut.start >= cut.stop:
                continue
            taken = slice(begin + cut.start, begin + cut.stop)
            np.add(sums[cut], values[taken], out=sums[cut], where=inside[cut])
            np.add(n[cut], counted[taken], out=n[cut], where=inside[cut])
        kept = np.flatnonzero(counted[span.begin - low : span.end - low])
        yield span, Passages(kept + span.offset, sums[kept] / (n[kept] + shrink))
