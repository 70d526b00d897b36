"""Which tokens to penalise (M3, Algorithm 1 of IF-Guide), from scores alone.

1. τ is the q-quantile of all scores; a token above it is *toxic*. Per ranking unit (a document, or a
   piece of one of ``unit_tokens`` tokens): c = number of toxic tokens, f = sum of their scores.
2. R = harmonic mean of the min-max normalised c and f.
3. Units by descending R; within a unit each toxic token, in order, adds itself and ``window``
   neighbours on each side, until the first window that does not fit the budget whole.

`select` does this without a loop over tokens. The literal loop that it must equal is in the tests.

Shapes: N tokens, D documents, U units, C toxic tokens (*centres*).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import InputError


@dataclass(frozen=True)
class SelectionSettings:
    """Parameters of Algorithm 1; the defaults are the paper's.

    Attributes:
        threshold_quantile: q in [0, 1); tokens with a score above the q-quantile are toxic.
        window: w, neighbours added on each side of a toxic token, inside its document.
        max_fraction: budget L as a share of all tokens; exclusive with ``max_tokens``.
        max_tokens: budget L in tokens.
        unit_tokens: longest ranking unit, in tokens; longer documents are ranked in pieces.
        include_eod: count and select end-of-document tokens too.
    """

    threshold_quantile: float = 0.99
    window: int = 1
    max_fraction: float | None = 0.02
    max_tokens: int | None = None
    unit_tokens: int = 2048
    include_eod: bool = False

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.threshold_quantile < 1:
            faults.append(f"threshold quantile must be in [0, 1), got {self.threshold_quantile}")
        if self.window < 0:
            faults.append(f"window must be at least 0, got {self.window}")
        if self.unit_tokens < 1:
            faults.append(f"unit tokens must be at least 1, got {self.unit_tokens}")
        if (self.max_fraction is None) == (self.max_tokens is None):
            faults.append("give exactly one of max fraction and max tokens")
        if self.max_fraction is not None and not 0 <= self.max_fraction <= 1:
            faults.append(f"max fraction must be in [0, 1], got {self.max_fraction}")
        if self.max_tokens is not None and self.max_tokens < 0:
            faults.append(f"max tokens must be at least 0, got {self.max_tokens}")
        if faults:
            raise InputError("; ".join(faults))

    def budget(self, num_tokens: int) -> int:
        """L in tokens (rounded down)."""
        if self.max_tokens is not None:
            return self.max_tokens
        assert self.max_fraction is not None
        return int(np.floor(self.max_fraction * num_tokens))


@dataclass(frozen=True)
class Selection:
    """Result of `select`.

    Attributes:
        selected: ``[N]`` bool.
        centre: ``[N]`` int64: the toxic token that brought each selected token in, -1 elsewhere
            (a graded mask gives window neighbours their centre's value).
        threshold: τ.
        counts: tokens, toxic, selected, budget, units, units_with_selection.
    """

    selected: NDArray[np.bool_]
    centre: NDArray[np.int64]
    threshold: float
    counts: dict[str, int]


def select(
    scores: NDArray[np.floating],
    starts: NDArray[np.int64],
    settings: SelectionSettings,
    eod: NDArray[np.bool_] | None = None,
) -> Selection:
    """Algorithm 1 (M3).

    Args:
        scores: ``[N]`` token scores of all documents, one after another.
        starts: ``[D+1]`` offset of each document's first token; ``starts[D] == N``.
        eod: ``[N]`` true at end-of-document tokens (excluded unless ``settings.include_eod``).

    Raises:
        InputError: no tokens, or a score that is NaN or infinite (names the document and offset).
    """
    num_tokens = len(scores)
    if num_tokens == 0:
        raise InputError("there are no scores to select from")
    _refuse_non_finite(scores, starts)

    eligible = np.ones(num_tokens, bool) if eod is None or settings.include_eod else ~eod
    threshold = float(np.quantile(np.asarray(scores, np.float64), settings.threshold_quantile))
    centres = np.flatnonzero((scores > threshold) & eligible)

    unit_starts = _unit_starts(starts, settings.unit_tokens)
    unit_of_centre = np.searchsorted(unit_starts, centres, side="right") - 1
    ranks = _unit_ranks(scores, centres, unit_of_centre, len(unit_starts))
    # stable sort on the rank keeps token order inside a unit
    centres = centres[np.argsort(ranks[unit_of_centre], kind="stable")]

    claim = _first_claims(centres, starts, num_tokens, settings.window, eligible)
    cost = np.bincount(claim[claim < len(centres)], minlength=len(centres))
    budget = settings.budget(num_tokens)
    admitted = int(np.searchsorted(np.cumsum(cost), budget, side="right"))

    selected = claim < admitted
    centre = np.full(num_tokens, -1, np.int64)
    centre[selected] = centres[claim[selected]]
    touched = np.searchsorted(unit_starts, centres[:admitted], side="right")
    counts = {
        "tokens": num_tokens,
        "toxic": len(centres),
        "selected": int(selected.sum()),
        "budget": budget,
        "units": len(unit_starts),
        "units_with_selection": len(np.unique(touched)),
    }
    return Selection(selected, centre, threshold, counts)


def graded_codes(scores: NDArray[np.floating], selection: Selection) -> NDArray[np.uint8]:
    """Mask codes 1..255 by how far a selected token's centre lies above τ (M4, graded encoding).

    τ maps to 1, the 0.999 quantile of the selected centres' scores to 255, clipped.
    """
    codes = np.zeros(len(scores), np.uint8)
    at = np.flatnonzero(selection.selected)
    if len(at) == 0:
        return codes
    centre_scores = np.asarray(scores[selection.centre[at]], np.float64)
    top = float(np.quantile(centre_scores, 0.999))
    span = max(top - selection.threshold, np.finfo(np.float64).tiny)
    share = np.clip((centre_scores - selection.threshold) / span, 0, 1)
    codes[at] = np.rint(1 + share * 254).astype(np.uint8)
    return codes


def random_selection(
    scores_like: NDArray, starts: NDArray[np.int64], num_tokens: int, seed: int, eod: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """The control: ``num_tokens`` eligible tokens drawn without replacement, ``[N]`` bool.

    Raises:
        InputError: more tokens asked for than there are.
    """
    eligible = np.arange(len(scores_like)) if eod is None else np.flatnonzero(~eod)
    if num_tokens > len(eligible):
        raise InputError(f"a random mask of {num_tokens} tokens does not fit into {len(eligible)} eligible tokens")
    selected = np.zeros(len(scores_like), bool)
    selected[np.random.default_rng(seed).choice(eligible, num_tokens, replace=False)] = True
    return selected


def _refuse_non_finite(scores: NDArray[np.floating], starts: NDArray[np.int64]) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        document = int(np.searchsorted(starts, bad[0], side="right")) - 1
        raise InputError(
            f"{len(bad)} of {len(scores)} scores are NaN or infinite, the first in document {document} at "
            f"token {bad[0] - starts[document]}; score that data again"
        )


def _unit_starts(starts: NDArray[np.int64], unit_tokens: int) -> NDArray[np.int64]:
    """Offsets where ranking units begin, ``[U]``: documents cut into pieces of ``unit_tokens``."""
    lengths = np.diff(starts)
    pieces = -(-lengths // unit_tokens)
    first = np.repeat(starts[:-1], pieces)
    piece = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return first + piece * unit_tokens


def _unit_ranks(
    scores: NDArray[np.floating], centres: NDArray[np.int64], unit_of_centre: NDArray[np.int64], num_units: int
) -> NDArray[np.int64]:
    """Place of each unit in the order of descending R, ties by position, ``[U]``."""
    count = np.bincount(unit_of_centre, minlength=num_units).astype(np.float64)
    sums = np.bincount(unit_of_centre, weights=scores[centres].astype(np.float64), minlength=num_units)
    c, f = _min_max(count), _min_max(sums.astype(np.float64))
    both = c + f
    harmonic = np.divide(2 * c * f, both, out=np.zeros(num_units), where=both > 0)
    ranks = np.empty(num_units, np.int64)
    ranks[np.argsort(-harmonic, kind="stable")] = np.arange(num_units)
    return ranks


def _min_max(values: NDArray[np.float64]) -> NDArray[np.float64]:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def _first_claims(
    centres: NDArray[np.int64],
    starts: NDArray[np.int64],
    num_tokens: int,
    window: int,
    eligible: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """For each token the place (in selection order) of the first centre whose window holds it, ``[N]``.

    A token no window reaches gets ``len(centres)``. Counting claims per centre gives the number of
    NEW tokens it adds, which is all the greedy loop needs to know.
    """
    order = np.arange(len(centres))
    claim = np.full(num_tokens, len(centres), np.int64)
    document = np.searchsorted(starts, centres, side="right") - 1
    low, high = starts[document], starts[document + 1]
    for shift in range(-window, window + 1):
        at = centres + shift
        inside = (at >= low) & (at < high)
        # within one shift every position is distinct, so a plain gather-compare-scatter is exact
        at, place = at[inside], order[inside]
        claim[at] = np.minimum(claim[at], place)
    claim[~eligible] = len(centres)
    return claim
