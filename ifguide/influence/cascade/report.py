"""What a mask made from a cascade's scores lost, estimated from the audit.

Every unit outside the choice had the same chance to be audited, so an audited unit stands for ``w`` units, itself
among them.

    missed     Algorithm 1 (M3) over the chosen units and the audited ones, these with weight w, estimates the exact
               mask. What it takes from audited units, w - 1 times, lies in units that were rejected.
    threshold  τ depends on how many rejected tokens lie above it. The audit knows that up to its standard error;
               the mask is made again with τ that much lower and higher.

Shapes: U ranking units, C toxic tokens.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.influence.cascade.choice import AUDITED, CHOSEN, REJECTED, Calibration, Choice
from ifguide.influence.options import CascadeSettings
from ifguide.selection import Selection, SelectionSettings, Source, paint_windows, select
from ifguide.selection.algorithm import first_claims, ranks_by_r, unit_r
from ifguide.selection.tail import toxic_tail
from ifguide.statistics.proportions import proportion_interval


@dataclass(frozen=True, eq=False)
class _Units:
    """What M3 knows of the units.

    Attributes:
        threshold: τ.
        toxic: int64[U], tokens above τ.
        tokens: float64[U], tokens that their windows cover.
        r: float64[U].
    """

    threshold: float
    toxic: NDArray[np.int64]
    tokens: NDArray[np.float64]
    r: NDArray[np.float64]


def report(final: Source, choice: Choice, calibration: Calibration, settings: CascadeSettings) -> dict[str, Any]:
    """How the mask of the ``final`` scores differs from the one that exact scores of everything would give.

    All intervals are at 95 % and approximate; they are as wide as the audit is small.

    Returns:
        ``settings``; ``units`` and ``tokens`` (total, chosen, audited); ``calibration`` (correlation, tokens);
        ``missed``: audited units that the exact mask takes from, and the share of the exact mask that lies in rejected
        units (estimate, interval); ``threshold``: τ, tokens above it in audited units, and the overlap of the masks at
        τ and one standard error beside; ``unverified``: share of the mask that rests on calibrated scores;
        ``jaccard``: overlap of the cascade's mask and the exact one (estimate, interval).
    """
    selection = settings.selection
    units = _measure(final, choice, selection)
    states = choice.states
    audited = states == AUDITED
    num_audited, outside = int(audited.sum()), int((states != CHOSEN).sum())
    weight = outside / num_audited
    budget = selection.budget(final.num_tokens)

    weights = np.select([states == CHOSEN, audited], [1.0, weight])
    exact = _admitted(units.tokens * weights, units.r, budget)
    size = float(exact.sum())
    hits = audited & (exact > 0)
    # without a hit, one would cost what the units of the mask give on average
    cost = exact[hits] / weight if hits.any() else exact[exact > 0] / np.maximum(weights[exact > 0], 1)
    per_unit = float(cost.mean()) if len(cost) else 0.0
    hit_share = int(hits.sum()) / num_audited
    lowest, highest = proportion_interval(hit_share, num_audited)
    low, estimate, high = (
        # the audited ones are in the mask themselves
        min(1.0, max(0.0, share * outside - int(hits.sum())) * per_unit / size) if size else 0.0
        for share in (lowest, hit_share, highest)
    )

    found = _admitted(units.tokens, units.r, budget)
    found_size, unverified = float(found.sum()), float(found[states == REJECTED].sum())
    overlaps = [
        _jaccard(min(size * (1 - share), found_size - unverified), size, found_size) for share in (low, estimate, high)
    ]
    above = units.toxic[audited]
    # the variance of a total over units drawn without replacement
    spread = float(above.std(ddof=1)) if num_audited > 1 else 0.0
    error = outside * spread * math.sqrt((1 - 1 / weight) / num_audited)
    error = max(error, weight)  # as of a single token: an audit without any has not seen all
    same = _overlap_beside(final, selection, error / final.num_tokens)
    return {
        "settings": asdict(settings),
        "units": {"total": len(states), "chosen": int((states == CHOSEN).sum()), "audited": num_audited},
        "tokens": {
            "total": final.num_tokens,
            "chosen": int(choice.lengths[states == CHOSEN].sum()),
            "audited": int(choice.lengths[audited].sum()),
        },
        "calibration": {"correlation": calibration.correlation, "tokens": calibration.tokens},
        "missed": {"audited_units": int(hits.sum()), "share": estimate, "interval": [low, high]},
        "threshold": {"value": units.threshold, "audited_above": int(above.sum()), "overlap": same},
        "unverified": unverified / found_size if found_size else 0.0,
        "jaccard": {"estimate": overlaps[1] * same, "interval": [overlaps[2] * same**2, overlaps[0]]},
    }


def describe(record: dict[str, Any]) -> list[str]:
    """The report in lines of text."""
    tokens, missed, jaccard = record["tokens"], record["missed"], record["jaccard"]
    plan = SelectionSettings(**record["settings"]["selection"])
    lines = [
        f"exact scores: {(tokens['chosen'] + tokens['audited']) / tokens['total']:.1%} of the tokens "
        f"({record['units']['chosen']} units chosen, {record['units']['audited']} audited)",
        f"for masks of at most {plan.budget(tokens['total'])} tokens above the {plan.threshold_quantile} quantile "
        f"(window {plan.window}, units of {plan.unit_tokens}{', EOD included' if plan.include_eod else ''})",
        f"missed: {missed['share']:.1%} of the exact mask (95 %: {missed['interval'][0]:.1%} to "
        f"{missed['interval'][1]:.1%}); it takes from {missed['audited_units']} of the audited units",
        f"overlap with the exact mask (Jaccard): {jaccard['estimate']:.3f} "
        f"(95 %: {jaccard['interval'][0]:.3f} to {jaccard['interval'][1]:.3f})",
    ]
    if record["unverified"] > 0:
        lines.append(
            f"{record['unverified']:.1%} of the mask rests on cheap scores; a larger --cascade-keep lowers that"
        )
    return lines


def _measure(source: Source, choice: Choice, settings: SelectionSettings) -> _Units:
    threshold, centres, scores = toxic_tail(source, settings.threshold_quantile, lambda span: None)
    count = len(choice.states)
    unit = np.searchsorted(choice.starts, centres, side="right") - 1
    r = unit_r(scores, unit, count)
    order = np.argsort(ranks_by_r(r)[unit], kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    gains = np.zeros(len(centres), np.int64)
    for span in source.spans():
        np.add.at(gains, first_claims(source, span, centres, places, settings.window)[1], 1)
    tokens = np.bincount(unit, weights=gains[places], minlength=count).astype(np.float64)
    return _Units(threshold, np.bincount(unit, minlength=count), tokens, r)


def _admitted(tokens: NDArray[np.float64], r: NDArray[np.float64], budget: int) -> NDArray[np.float64]:
    """Tokens of each unit in a mask of ``budget`` tokens, by descending R; the last one gives a part, float64[U]."""
    order = np.argsort(-r, kind="stable")
    ordered = tokens[order]
    admitted = np.empty_like(tokens)
    admitted[order] = np.clip(budget - (np.cumsum(ordered) - ordered), 0, ordered)
    return admitted


def _overlap_beside(source: Source, settings: SelectionSettings, error: float) -> float:
    """Mean Jaccard of the mask with those whose quantile is ``error`` lower and higher."""
    q = settings.threshold_quantile
    # never so far that no token, or every one, is above
    beside = [max(q - error, 0.0), min(q + error, (1 + q) / 2)]
    here = select(source, settings)
    return float(
        np.mean([_overlap(source, here, select(source, replace(settings, threshold_quantile=b))) for b in beside])
    )


def _overlap(source: Source, first: Selection, second: Selection) -> float:
    """Jaccard of two masks."""
    shared = sizes = 0
    for span in source.spans():
        one, other = (
            paint_windows(source, span, selection, np.ones(len(selection.centres), np.uint8)) > 0
            for selection in (first, second)
        )
        shared += int((one & other).sum())
        sizes += int(one.sum()) + int(other.sum())
    return _jaccard(shared, sizes - shared, shared)


def _jaccard(shared: float, first: float, second: float) -> float:
    """|A ∩ B| / |A ∪ B| from |A ∩ B|, |A| and |B|."""
    union = first + second - shared
    return shared / union if union else 1.0
