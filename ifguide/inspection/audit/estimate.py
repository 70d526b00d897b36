"""Precision, recall and the share of abuse from labels, with intervals, and masks compared.

Of stratum h with N_h tokens (K_hm of them selected by mask m) the spans i were drawn w_i times in all; span i is abuse
or not (y_i), and mask m selects the share f_im of its tokens. With sums over the spans of the stratum

    B_h  = N_h  Σ w y / Σ w                 tokens of spans that are abuse
    R_hm = N_h  Σ w y f_m / Σ w             those of them that the mask selects
    A_hm = K_hm Σ w y f_m / Σ w f_m         the same as a part of what the mask selects, which is known

    share of abuse = Σ_h B_h / Σ_h N_h      precision = Σ_h A_hm / Σ_h K_hm
    recall = Σ_h R_hm / Σ_h B_h             reached = Σ_h [the mask touches stratum h] B_h / Σ_h B_h
    F1 = 2 precision recall / (precision + recall)

all by tokens. B and R are Hansen and Hurwitz' estimator for sampling proportional to size (1943), A the separate ratio
estimator of stratified sampling (Cochran, Sampling Techniques, 1977, 6.10).

Intervals are the Bayesian bootstrap within strata (Rubin 1981): each draw gets a random weight from Gamma(1), so a span
one from Gamma(w). A pseudo-draw of weight Gamma(1) with the stratum's own f_m = K_hm / N_h stands in every stratum for
what so few draws cannot have seen: in one set of resamples it is not abuse, in the other it is. The interval reaches
from the lower of the two 2.5 % quantiles to the higher of the two 97.5 % quantiles. In one stratum where f is the same
for all spans these are quantiles of Beta(s, n - s + 1) and Beta(s + 1, n - s) for s abusive of n draws: the interval of
Clopper and Pearson (1934), which errs on the wide side. Two masks are compared with the same weights (paired). A
stratum that was taken and decided whole varies in nothing.

Shapes: H strata, M masks, n decided spans of one stratum, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import InputError
from ifguide.inspection.audit.drawing import stratum_names
from ifguide.inspection.audit.labels import ABUSE, UNSURE

CONFIDENCE = 0.95
RESAMPLES = 5000
MEASURES = ("precision", "recall", "reached", "f1")
_WHOLE = 0.9  # a mask that selects less of the spans that it touches takes parts of them
# weights of the pseudo-draws: two that are not abuse and two that are, the second of each with an identity term
_PSEUDO_DRAWS = ((0.5, 0.5, 0.0, 0.0), (0.0, 0.0, 0.5, 0.5))

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stratum:
    """The decided spans of one stratum.

    Attributes:
        tokens: N_h.
        selected: int64[M], K_hm.
        touched: bool[M], whether its spans are those that the mask touches.
        weights: float64[n], draws; of a stratum that was taken whole, tokens over their mean.
        abuse: bool[n].
        parts: float64[n, M], the share of each span's tokens that a mask selects.
        terms: bool[n], whether the text has an identity term.
        exact: taken and decided whole.
    """

    tokens: int
    selected: NDArray[np.int64]
    touched: NDArray[np.bool_]
    weights: Floats
    abuse: NDArray[np.bool_]
    parts: Floats
    terms: NDArray[np.bool_]
    exact: bool


@dataclass(frozen=True, eq=False)
class Numbers:
    """Estimates of each resample (R is 1 for the estimates themselves); NaN where nothing is to be divided by.

    Attributes:
        share: float64[R].
        masks: measure of `MEASURES` -> float64[R, M].
        harmless: "with" and "without" -> float64[R, M], the selected share of the tokens of harmless spans with an
            identity term, or without one.
    """

    share: Floats
    masks: dict[str, Floats]
    harmless: dict[str, Floats]


def strata_of(
    record: Mapping[str, Any],
    labels: Mapping[str, str],
    terms: Mapping[str, bool] | None = None,
    unsure: str | None = None,
) -> list[Stratum]:
    """
    Args:
        record: of the audit.
        labels: id -> label.
        terms: id -> whether the span's text has an identity term.
        unsure: the label that stands for unsure; None leaves such spans out, like those without a label.

    Raises:
        InputError: a stratum without a decided span.
    """
    rows: list[list[dict[str, Any]]] = [[] for _ in record["strata"]]
    for span in record["spans"]:
        label = labels.get(span["id"])
        label = unsure if label == UNSURE else label
        if label is not None:
            rows[span["stratum"]].append({**span, "abuse": label == ABUSE, "term": bool((terms or {}).get(span["id"]))})
    found = []
    for stratum, decided, name in zip(record["strata"], rows, stratum_names(dict(record))):
        if not decided:
            raise InputError(
                f"no span of the stratum '{name}' is labelled as abuse or not; label more of the "
                f"{len(record['spans'])} spans"
            )
        sizes = np.array([row["tokens"] for row in decided], np.float64)
        whole = bool(stratum["complete"])
        touched = np.zeros(len(record["masks"]), bool)
        touched[stratum["masks"]] = True
        found.append(
            Stratum(
                int(stratum["tokens"]),
                np.array(stratum["selected"]),
                touched,
                sizes / sizes.mean() if whole else np.array([row["draws"] for row in decided], np.float64),
                np.array([row["abuse"] for row in decided]),
                np.array([row["selected"] for row in decided]) / sizes[:, None],
                np.array([row["term"] for row in decided]),
                whole and len(decided) == stratum["spans"],
            )
        )
    return found


def point(strata: Sequence[Stratum]) -> Numbers:
    """The estimates: R is 1."""
    return _numbers(strata, [stratum.weights[None] for stratum in strata], pseudo=False)


def resampled(strata: Sequence[Stratum], seed: int = 0, resamples: int = RESAMPLES) -> Numbers:
    """The estimates with random weights: ``resamples`` with each kind of pseudo-draw, one kind after the other."""
    generator = np.random.default_rng(seed)
    weights = []
    for stratum in strata:
        own = np.tile(stratum.weights, (len(_PSEUDO_DRAWS) * resamples, 1))
        pseudo = np.zeros((len(own), len(_PSEUDO_DRAWS[0])))
        if not stratum.exact:
            own = generator.gamma(own)
            pseudo = generator.gamma(np.repeat(_PSEUDO_DRAWS, resamples, axis=0))
        weights.append(np.concatenate([own, pseudo], axis=1))
    return _numbers(strata, weights, pseudo=True)


def audit(
    record: Mapping[str, Any], labels: Mapping[str, str], terms: Mapping[str, bool] | None = None, seed: int = 0
) -> dict[str, Any]:
    """All numbers of an audit, for ``--json``.

    Raises:
        InputError: as `strata_of`.
    """
    strata = strata_of(record, labels, terms)
    numbers, drawn = point(strata), resampled(strata, seed)
    names = list(record["masks"])
    said = list(labels.values())
    result: dict[str, Any] = {
        "audit": record["audit"],
        "labels": {"given": len(said), "spans": len(record["spans"]), "unsure": said.count(UNSURE),
                   "abuse": said.count(ABUSE)},
        "share": _estimate(numbers.share[0], drawn.share),
        "masks": [
            {"mask": name, **{key: _estimate(numbers.masks[key][0, m], drawn.masks[key][:, m]) for key in MEASURES}}
            for m, name in enumerate(names)
        ],
    }  # fmt: skip
    if terms is not None:
        result["identity"] = [
            {"mask": name, **_identity(numbers, drawn, m), "spans": _harmless_spans(strata)}
            for m, name in enumerate(names)
        ]
    if UNSURE in said:
        result["if_unsure_are"] = {
            label: _bare(point(strata_of(record, labels, terms, label)), names) for label in (ABUSE, "not")
        }
    result["strata"] = [
        {"masks": name, "spans": about["spans"], "tokens": about["tokens"], "draws": about["draws"],
         "decided": len(stratum.abuse), "abuse": int(stratum.abuse.sum())}
        for name, about, stratum in zip(stratum_names(dict(record)), record["strata"], strata)
    ]  # fmt: skip
    result["partial"] = [name for m, name in enumerate(names) if _covered(strata, m) < _WHOLE]
    return result | _compared(names, numbers, drawn)


def _covered(strata: Sequence[Stratum], m: int) -> float:
    """The share of the tokens of all touched spans that mask m selects."""
    touched = [stratum for stratum in strata if stratum.touched[m]]
    return sum(int(stratum.selected[m]) for stratum in touched) / sum(stratum.tokens for stratum in touched)


def _numbers(strata: Sequence[Stratum], weights: Sequence[Floats], pseudo: bool) -> Numbers:
    count = len(strata[0].selected)
    rows = len(weights[0])
    abuse, reached = np.zeros(rows), np.zeros((rows, count))
    inside, hit = np.zeros((rows, count)), np.zeros((rows, count))
    spared = {name: [np.zeros((rows, count)), np.zeros(rows)] for name in ("with", "without")}
    for stratum, weight in zip(strata, weights):
        y, f, t = stratum.abuse.astype(np.float64), stratum.parts, stratum.terms.astype(np.float64)
        if pseudo:
            own = np.broadcast_to(stratum.selected / stratum.tokens, (4, count))
            y, f, t = np.append(y, [0, 0, 1, 1]), np.concatenate([f, own]), np.append(t, [0, 1, 0, 1])
        total = weight.sum(axis=1)
        abusive = stratum.tokens * (weight @ y) / total
        abuse += abusive
        reached += abusive[:, None] * stratum.touched
        found = weight @ (y[:, None] * f)
        inside += stratum.tokens * found / total[:, None]
        taken = weight @ f
        hit += stratum.selected * np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
        for name, member in (("with", (1 - y) * t), ("without", (1 - y) * (1 - t))):
            spared[name][0] += stratum.tokens * (weight @ (member[:, None] * f)) / total[:, None]
            spared[name][1] += stratum.tokens * (weight @ member) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = hit / sum(stratum.selected for stratum in strata)
        recall = inside / abuse[:, None]
        masks = {
            "precision": precision,
            "recall": recall,
            "reached": reached / abuse[:, None],
            "f1": np.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0 * recall),
        }
        harmless = {name: top / bottom[:, None] for name, (top, bottom) in spared.items()}
    return Numbers(abuse / sum(stratum.tokens for stratum in strata), masks, harmless)


def _estimate(value: float, drawn: Floats, confidence: float = CONFIDENCE) -> dict[str, float] | None:
    """The estimate with its interval, which holds the estimate; None where there is nothing to estimate."""
    if not np.isfinite(value):
        return None
    kinds = drawn.reshape(len(_PSEUDO_DRAWS), -1)
    low, high = np.nanquantile(kinds, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return {"value": float(value), "low": min(float(low.min()), value), "high": max(float(high.max()), value)}


def _identity(numbers: Numbers, drawn: Numbers, m: int) -> dict[str, Any]:
    found = {name: _estimate(numbers.harmless[name][0, m], drawn.harmless[name][:, m]) for name in ("with", "without")}
    gap = numbers.harmless["with"][0, m] - numbers.harmless["without"][0, m]
    return {**found, "difference": _estimate(gap, drawn.harmless["with"][:, m] - drawn.harmless["without"][:, m])}


def _harmless_spans(strata: Sequence[Stratum]) -> dict[str, int]:
    """Labelled spans that are not abuse."""
    return {
        "with": sum(int((~stratum.abuse & stratum.terms).sum()) for stratum in strata),
        "without": sum(int((~stratum.abuse & ~stratum.terms).sum()) for stratum in strata),
    }


def _bare(numbers: Numbers, names: Sequence[str]) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "share": plain(numbers.share[0]),
        "masks": [
            {"mask": name, **{key: plain(numbers.masks[key][0, m]) for key in MEASURES}} for m, name in enumerate(names)
        ],
    }


def _compared(names: Sequence[str], numbers: Numbers, drawn: Numbers) -> dict[str, Any]:
    """Every pair by its paired differences, and the mask whose F1 is higher than that of each other one, if there is
    one; those intervals share the 5 % among all pairs (Bonferroni)."""
    pairs = list(combinations(range(len(names)), 2))
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
    beaten: set[int] = set()
    beats: dict[int, set[int]] = {m: set() for m in range(len(names))}
    rows = []
    for a, b in pairs:
        row: dict[str, Any] = {"first": names[a], "second": names[b]}
        for key in ("precision", "recall", "f1"):
            gap = numbers.masks[key][0, a] - numbers.masks[key][0, b]
            row[key] = _estimate(gap, drawn.masks[key][:, a] - drawn.masks[key][:, b])
        gap = numbers.masks["f1"][0, a] - numbers.masks["f1"][0, b]
        decisive = _estimate(gap, drawn.masks["f1"][:, a] - drawn.masks["f1"][:, b], confidence)
        row["better"] = None
        if decisive is not None and (decisive["low"] > 0 or decisive["high"] < 0):
            better, worse = (a, b) if decisive["low"] > 0 else (b, a)
            row["better"] = names[better]
            beats[better].add(worse)
            beaten.add(worse)
        rows.append(row)
    winners = [m for m, others in beats.items() if len(others) == len(names) - 1 and pairs]
    return {
        "comparisons": rows,
        "recommended": names[winners[0]] if winners else None,
        "cannot_tell_apart": [] if winners or not pairs else [names[m] for m in range(len(names)) if m not in beaten],
    }
