"""The cascade: cheap scores of everything, exact scores (M2) of what can still make the mask (M3).

    cheap pass    a small proxy scores every token (`head`); any scores of the same tokens will do
    `choose`      ranking units by the R of their cheap scores: the first ones, up to a share of the tokens, are scored
                  exactly, and so is the audit, a random sample of the others
    `calibrate`   cheap scores -> the scale of the exact ones, by the audit: τ is a quantile of ALL scores
    `combine`     exact scores where there are any, calibrated cheap ones elsewhere
    `report.report`    what the mask lost, estimated from the audit

The scores stay on disk and are read in chunks; memory grows with units, audit and toxic tokens.

Shapes: N tokens, U ranking units, W windows, M audited tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.influence.options import CascadeSettings
from ifguide.influence.windows import Windows
from ifguide.selection import Source
from ifguide.selection.algorithm import unit_r, unit_starts
from ifguide.selection.exact import AUDITED, CHOSEN, REJECTED, states_from_text, states_to_text
from ifguide.selection.source import CHUNK_TOKENS, read_values
from ifguide.selection.tail import toxic_tail

__all__ = [
    "AUDITED", "CHOSEN", "REJECTED", "Calibration", "Choice", "calibrate", "choose", "combine",
    "states_from_text",
]  # fmt: skip

# the ranking looks at twice the share of the scores that is above τ: what the proxy puts a little below τ may lie above
_SLACK = 2.0
_KNOTS = 2048  # of the calibration, on each side of the median


@dataclass(frozen=True, eq=False)
class Choice:
    """Which units are scored exactly.

    Attributes:
        starts: int64[U + 1], first token of each unit, and N.
        states: uint8[U], REJECTED, CHOSEN or AUDITED.
    """

    starts: NDArray[np.int64]
    states: NDArray[np.uint8]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[U]"""
        return np.diff(self.starts)

    @property
    def exact(self) -> NDArray[np.bool_]:
        """bool[U]: units whose tokens all have exact scores."""
        return self.states != REJECTED

    def exact_tokens(self, begin: int, end: int) -> NDArray[np.bool_]:
        """bool[end - begin]: which of these tokens have exact scores."""
        first = int(np.searchsorted(self.starts, begin, side="right")) - 1
        last = int(np.searchsorted(self.starts, end, side="left"))
        bounds = np.clip(self.starts[first : last + 1], begin, end)
        return np.repeat(self.exact[first:last], np.diff(bounds))

    def windows(self, windows: Windows) -> NDArray[np.int64]:
        """The windows that score a token of an exact unit, ascending; the others need no exact pass."""
        before = np.concatenate([[0], np.cumsum(self.exact)])
        first = np.searchsorted(self.starts, windows.targets, side="right") - 1
        last = np.searchsorted(self.starts, windows.targets + windows.scored, side="left")
        return np.flatnonzero(before[last] > before[first])

    def to_text(self) -> str:
        """The states for a JSON file; `states_from_text` reads them."""
        return states_to_text(self.states)


def choose(cheap: Source, settings: CascadeSettings) -> Choice:
    """Rank the units by their cheap scores and draw the audit.

    Units come by descending R (M3), those without any token above the threshold by their highest score. The first
    that does not fit ``keep`` ends the choice. Each of the others has the same chance to be audited.

    Args:
        cheap: one corpus with its cheap scores.

    Raises:
        NumericsError: a score is not finite.
    """
    selection = settings.selection
    share_above = min(1.0, _SLACK * (1 - selection.threshold_quantile))
    _, centres, scores = toxic_tail(cheap, 1 - share_above, lambda span: None)
    starts = unit_starts(cheap.starts, selection.unit_tokens)
    r = unit_r(scores, np.searchsorted(starts, centres, side="right") - 1, len(starts))
    order = np.lexsort((-_peaks(cheap, starts), -r))  # stable: ties by position
    starts = np.append(starts, cheap.num_tokens)
    lengths = np.diff(starts)
    count = int(np.searchsorted(np.cumsum(lengths[order]), settings.keep * cheap.num_tokens, side="right"))
    rest = np.sort(order[count:])
    audited = max(1, round(settings.audit * cheap.num_tokens / float(lengths[rest].mean())))
    states = np.full(len(lengths), REJECTED, np.uint8)
    states[order[:count]] = CHOSEN
    states[np.random.default_rng(settings.seed).permutation(rest)[:audited]] = AUDITED
    return Choice(starts, states)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A monotone map of cheap scores to the scale of the exact ones; constant beyond its ends.

    Attributes:
        cheap, exact: float64[knots], ascending.
        correlation: of cheap and exact scores over the audited tokens.
        tokens: audited.
    """

    cheap: NDArray[np.float64]
    exact: NDArray[np.float64]
    correlation: float
    tokens: int

    def __call__(self, cheap: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.interp(cheap, self.cheap, self.exact).astype(np.float32)


def calibrate(cheap: NDArray[np.float32], exact: NDArray[np.float32], choice: Choice) -> Calibration:
    """Match the distributions of the audited tokens' cheap and exact scores, quantile by quantile.

    What the audit stands for then has as many scores above any value as its exact scores would have, within the
    audit's chance. The order of its tokens stays the proxy's.

    Args:
        cheap, exact: [N], arrays or memory maps; ``exact`` is read where units were audited.
    """
    audited = np.flatnonzero(choice.states == AUDITED)
    bounds = [(int(choice.starts[unit]), int(choice.starts[unit + 1])) for unit in audited]
    c = np.concatenate([read_values(cheap, *pair) for pair in bounds])
    e = np.concatenate([read_values(exact, *pair) for pair in bounds])
    spread = float(np.std(c, dtype=np.float64) * np.std(e, dtype=np.float64))
    correlation = float(np.mean((c - c.mean(dtype=np.float64)) * (e - e.mean(dtype=np.float64)))) / (spread or 1.0)
    c.sort()
    e.sort()
    ranks = _knot_ranks(len(c))
    # of equal cheap scores the last rank counts: `np.interp` needs ascending knots
    last = np.append(np.diff(c[ranks]) > 0, True)
    ranks = ranks[last]
    return Calibration(c[ranks].astype(np.float64), e[ranks].astype(np.float64), correlation, len(c))


def combine(
    cheap: NDArray[np.float32],
    exact: NDArray[np.float32],
    choice: Choice,
    calibration: Calibration,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Iterator[NDArray[np.float32]]:
    """The final scores in consecutive pieces: exact where the unit was chosen or audited, else calibrated."""
    total = int(choice.starts[-1])
    for begin in range(0, total, chunk_tokens):
        end = min(begin + chunk_tokens, total)
        known = choice.exact_tokens(begin, end)
        yield np.where(known, read_values(exact, begin, end), calibration(read_values(cheap, begin, end)))


def _peaks(source: Source, starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The highest score of each unit, float32[U]."""
    peaks = np.full(len(starts), -np.inf, np.float32)
    for span in source.spans():
        begin, end = span.offset, span.offset + len(span)
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        last = int(np.searchsorted(starts, end, side="left"))
        inside = np.maximum(starts[first:last], begin) - begin
        here = np.maximum.reduceat(source.scores(span), inside)
        peaks[first:last] = np.maximum(peaks[first:last], here)
    return peaks


def _knot_ranks(count: int) -> NDArray[np.int64]:
    """Ranks below ``count``, ascending: every one near both ends, where the tail is, ever fewer towards the middle."""
    from_end = np.unique(np.geomspace(1, count // 2 + 1, _KNOTS).astype(np.int64)) - 1
    return np.unique(np.concatenate([from_end, count - 1 - from_end]))
