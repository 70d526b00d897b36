"""(M3b) Selection by passages, and (M3c) of tokens within them.

Shapes: A selected passages, C selected tokens, S tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.selection.best import Best
from ifguide.selection.passages import Passages
from ifguide.selection.settings import EACH, HIGHEST, LOWEST, WithinSettings
from ifguide.selection.source import Source, Span


@dataclass(frozen=True, eq=False)
class Chosen:
    """The selected passages, or the tokens selected within them.

    Attributes:
        passages: ascending by position.
        threshold: the lowest score among them; None where there are none.
        did_not_fit: tokens of the first passage that the budget could not hold; None where all are selected.
    """

    passages: Passages
    did_not_fit: int | None = None

    @property
    def threshold(self) -> float | None:
        return float(self.passages.scores.min()) if len(self.passages) else None


def select_passages(pieces: Iterable[Passages], budget: int, positive: bool) -> Chosen:
    """The passages of a stream by descending score, ties by position, until the first that does not fit ``budget``.

    Args:
        positive: leave out passages with a score of 0 or less.
    """
    best = Best(budget)
    for found in pieces:
        best.add(found.take(found.scores > 0) if positive else found)
    return Chosen(*best.result())


def select_within(
    source: Source,
    chosen: Chosen,
    settings: WithinSettings,
    on_span: Callable[[Span], object] = lambda span: None,
) -> Chosen:
    """The tokens of the ``chosen`` passages that ``settings`` take by the scores of ``source``.

    Raises:
        NumericsError: a score is NaN or infinite.
    """
    if settings.rule == EACH:
        positions = _of_each(source, chosen.passages, settings, on_span)
    else:
        best = Best(settings.budget(source.num_tokens))
        for span, _, at in _tokens_of(source, chosen.passages):
            keys = _keys(source.scores(span)[at - span.offset], at, settings)
            # what comes first has the smallest key
            best.add(Passages(at, -keys.astype(np.float64)))
            on_span(span)
        positions = best.result()[0].begins
    return Chosen(Passages(positions, _scores_at(source, positions)))


def _of_each(
    source: Source, passages: Passages, settings: WithinSettings, on_span: Callable[[Span], object]
) -> NDArray[np.int64]:
    """⌈φ n⌉ tokens of each passage."""
    share = settings.exact_share
    found: list[NDArray[np.int64]] = []
    ends = passages.ends
    open_numbers, open_at = np.zeros(0, np.int64), np.zeros(0, np.int64)
    open_keys: NDArray = np.zeros(0)
    for span, numbers, at in _tokens_of(source, passages):
        keys = _keys(source.scores(span)[at - span.offset], at, settings)
        if len(open_at):
            numbers, at = np.append(open_numbers, numbers), np.append(open_at, at)
            keys = np.append(open_keys, keys)
        # a passage that goes on in the next chunk waits
        whole = int(np.searchsorted(ends, span.offset + len(span), side="right"))
        done = int(np.searchsorted(numbers, whole))
        open_numbers, open_at, open_keys = numbers[done:], at[done:], keys[done:]
        numbers, at, keys = numbers[:done], at[:done], keys[:done]
        order = np.lexsort((keys, numbers))  # stable: the earlier of equal tokens comes first
        first = np.flatnonzero(np.diff(numbers, prepend=-1))
        sizes = np.diff(np.append(first, len(numbers)))
        quota = -(-sizes * share.numerator // share.denominator)
        rank = np.arange(len(numbers)) - np.repeat(first, sizes)
        found.append(np.sort(at[order[rank < np.repeat(quota, sizes)]]))
        on_span(span)
    return np.concatenate([np.zeros(0, np.int64), *found])


def _tokens_of(
    source: Source, passages: Passages
) -> Iterator[tuple[Span, NDArray[np.int64], NDArray[np.int64]]]:  # fmt: skip
    """Chunk by chunk: (passage of each eligible token of the passages, its global position)."""
    for span in source.spans():
        begins, ends, near = _overlap(passages, span)
        lengths = ends - begins
        at = np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        numbers = np.repeat(np.arange(near.start, near.stop), lengths)
        eligible = source.eligible(span, at - span.offset)
        yield span, numbers[eligible], at[eligible]


def _overlap(passages: Passages, span: Span) -> tuple[NDArray[np.int64], NDArray[np.int64], slice]:
    """(begin and end of the parts of passages inside ``span``, which passages those are)."""
    first = int(np.searchsorted(passages.begins, span.offset, side="right"))
    last = int(np.searchsorted(passages.begins, span.offset + len(span)))
    length = 1 if first == 0 or passages.lengths is None else int(passages.lengths[first - 1])
    if first and int(passages.begins[first - 1]) + length > span.offset:
        first -= 1  # began in an earlier chunk
    near = slice(first, last)
    begins = passages.begins[near]
    ends = begins + (1 if passages.lengths is None else passages.lengths[near])
    return np.maximum(begins, span.offset), np.minimum(ends, span.offset + len(span)), near


def _keys(values: NDArray[np.float32], at: NDArray[np.int64], settings: WithinSettings) -> NDArray:
    """What is taken first has the smallest."""
    if settings.order == HIGHEST:
        return -values
    return values if settings.order == LOWEST else random_keys(at, settings.seed)


def random_keys(at: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each position, by the position and ``seed`` alone (SplitMix64)."""
    with np.errstate(over="ignore"):
        z = (at.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z ^= _mixed(np.full(1, seed % (1 << 64), np.uint64))
        z = _mixed(z)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _scores_at(source: Source, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """The scores of these ascending positions."""
    scores = np.zeros(len(positions))
    for span in source.spans():
        first, last = np.searchsorted(positions, [span.offset, span.offset + len(span)])
        if first < last:
            scores[first:last] = source.scores(span)[positions[first:last] - span.offset]
    return scores


def paint_chosen(
    source: Source, span: Span, chosen: Chosen, strengths: NDArray[np.uint8]
) -> NDArray[np.uint8]:  # fmt: skip
    """Mask codes of ``span``: every eligible token of a chosen passage has its strength."""
    begins, ends, near = _overlap(chosen.passages, span)
    codes = np.zeros(len(span), np.uint8)
    if chosen.passages.lengths is None:
        codes[begins - span.offset] = strengths[near]
        return codes
    lengths = ends - begins
    at = np.repeat(begins - span.offset - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    allowed = source.eligible(span, at)
    codes[at[allowed]] = np.repeat(strengths[near], lengths)[allowed]
    return codes
