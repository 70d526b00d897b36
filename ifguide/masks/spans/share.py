"""How much of a corpus is abuse, by a classifier whose errors are known.

The share of tokens in spans that the classifier suspects is

    observed = share · TPR + (1 - share) · FPR,   so   share = (observed - FPR) / (TPR - FPR), clipped to [0, 1].

TPR is the classifier's cross-validated one; FPR that of text known to be clean, or of the safe queries. The interval is
a bootstrap over documents, in which both rates vary as their samples let them.

Shapes: D sampled documents, T tokens of them, R resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned, load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES
from ifguide.errors import IFGuideWarning, InputError, MismatchError
from ifguide.selection.source import read_values
from ifguide.system.progress import Progress, counted

FEWEST_SPANS = 20_000
_RESAMPLES = 2000
_CAP = 0.10


@dataclass(frozen=True, eq=False)
class Sample:
    """Documents drawn at random.

    Attributes:
        sizes: int64[D], tokens without EOD.
        suspected: int64[D], those in spans above the threshold.
        scores: float32[T], of the tokens without EOD.
        spans: how many spans they have (neighbours of one score count as one).
    """

    sizes: NDArray[np.int64]
    suspected: NDArray[np.int64]
    scores: NDArray[np.float32]
    spans: int


@dataclass(frozen=True)
class Estimate:
    """The share of abuse among the tokens without EOD.

    Attributes:
        share, low, high: the estimate and its 95 % interval.
        observed: share in suspected spans.
        true_positive_rate, false_positive_rate: of the classifier.
        clean: where the second comes from.
        documents, spans, tokens: of the sample.
        budgets: for half, all and twice of the estimate: ``budget``, what of the abuse is ``left``, and what of the
            rest is ``touched``, as shares of all tokens.
    """

    share: float
    low: float
    high: float
    observed: float
    true_positive_rate: float
    false_positive_rate: float
    clean: str
    documents: int
    spans: int
    tokens: int
    budgets: tuple[dict[str, float], ...]


def estimate_share(
    scores: Sequence[str | Path],
    *,
    clean: str | Path | None = None,
    data_prefixes: Sequence[str | Path] | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> Estimate:
    """
    Args:
        scores: of score-text with a classifier of train-classifier, one a corpus.
        clean: scores of the same classifier for text that is known to hold no abuse.
        data_prefixes: the tokens of each corpus, if they moved since they were scored.
        seed: of the sample and the bootstrap.

    Raises:
        InputError: scores of no such classifier, or of different ones.
    """
    opened = [_open(prefix, data_prefixes[k] if data_prefixes else None) for k, prefix in enumerate(scores)]
    scorer = opened[0][0].sidecar["scorer"]
    _same_scorer(scorer, [aligned for aligned, _ in opened[1:]])
    report = scorer["report"]
    generator = np.random.default_rng(seed)
    sample = draw(opened, float(scorer["threshold"]), generator, quiet)
    positives, negatives = int(report["positives"]), int(report["texts"] - report["positives"])
    tpr, fpr = float(report["true_positive_rate"]), float(report["false_positive_rate"])
    tprs = generator.binomial(positives, tpr, _RESAMPLES) / positives
    if clean is None:
        where = "the safe queries"
        fprs = generator.binomial(negatives, fpr, _RESAMPLES) / negatives
        warnings.warn(
            f"the false positives ({fpr:.2%}) are those of the safe queries, and other text may have more or fewer; "
            "name scores of text known to be clean with --clean-data",
            IFGuideWarning,
            stacklevel=2,
        )
    else:
        where = str(clean)
        other = _open(clean, None)
        _same_scorer(scorer, [other[0]])
        found = draw([other], float(scorer["threshold"]), generator, quiet)
        fpr = float(found.suspected.sum() / max(1, found.sizes.sum()))
        fprs = _ratios(found, generator)
    if tpr <= fpr:
        raise InputError(
            f"{opened[0][0].prefix}: the classifier suspects {fpr:.1%} of clean and {tpr:.1%} of toxic text; it cannot "
            "say what share is toxic: train it on more queries"
        )
    observed = float(sample.suspected.sum() / max(1, sample.sizes.sum()))
    share = _share(observed, tpr, fpr)
    low, high = np.quantile(_share(_ratios(sample, generator), tprs, fprs), [0.025, 0.975]).tolist()
    return Estimate(
        share, min(low, share), max(high, share), observed, tpr, fpr, where,
        len(sample.sizes), sample.spans, int(sample.sizes.sum()),
        tuple(_outlook(sample, share, positives / (positives + negatives))),
    )  # fmt: skip


def budget_of(estimate: Estimate, cap: float = _CAP, again: str = "") -> float:
    """The share of tokens that ``--budget auto`` stands for.

    Raises:
        InputError: the interval contains 0: whether there is any abuse is not known.
    """
    if estimate.low <= 0:
        raise InputError(
            f"the share of abuse is estimated at {estimate.share:.2%}, with a 95 % interval from 0 to "
            f"{estimate.high:.2%}: a budget cannot be taken from that; name one, as in {again or '--max-fraction 0.01'}"
        )
    return min(estimate.share, cap)


def lines(estimate: Estimate) -> list[str]:
    """For a terminal."""
    text = [
        f"share of abuse: {estimate.share:.2%} of the tokens, 95 % interval {estimate.low:.2%} to {estimate.high:.2%} "
        f"({counted(estimate.documents, 'document')}, {counted(estimate.tokens, 'token')} sampled)",
        f"  suspected {estimate.observed:.2%}; true positives {estimate.true_positive_rate:.1%}, false positives "
        f"{estimate.false_positive_rate:.2%} (of {estimate.clean})",
    ]
    for row in estimate.budgets:
        text.append(
            f"  a budget of {row['budget']:.2%} leaves {row['left']:.2%} that are abuse and touches "
            f"{row['touched']:.2%} that are not"
        )
    return text


def draw(
    opened: Sequence[tuple[Aligned, TokenDataset]],
    threshold: float,
    generator: np.random.Generator,
    quiet: bool = True,
    fewest_spans: int = FEWEST_SPANS,
) -> Sample:
    """Whole documents of all corpora in random order, until they have ``fewest_spans`` spans."""
    counts = [aligned.dataset.num_documents for aligned, _ in opened]
    firsts = np.cumsum([0, *counts])
    sizes, suspected, kept, spans = [], [], [], 0
    with Progress(fewest_spans, "spans", "sample", quiet=quiet) as progress:
        for number in generator.permutation(int(firsts[-1])):
            if spans >= fewest_spans:
                break
            k = int(np.searchsorted(firsts, number, side="right")) - 1
            (aligned, tokens), document = opened[k], int(number - firsts[k])
            begin, end = int(aligned.starts[document]), int(aligned.starts[document + 1])
            values = read_values(aligned.values, begin, end)
            eod = aligned.sidecar.get("eod")
            if eod is not None:
                values = values[read_values(tokens.tokens, begin, end) != eod]
            sizes.append(len(values))
            suspected.append(int(np.count_nonzero(values > threshold)))
            kept.append(values)
            new = int(np.count_nonzero(np.diff(values))) + 1 if len(values) else 0
            spans += new
            progress.update(new)
    return Sample(np.array(sizes), np.array(suspected), np.concatenate([np.zeros(0, np.float32), *kept]), spans)


def _open(prefix: str | Path, data: str | Path | None) -> tuple[Aligned, TokenDataset]:
    aligned = load_aligned(prefix, None, SCORES)
    if "report" not in (aligned.sidecar.get("scorer") or {}):
        raise InputError(
            f"{prefix}: nothing says how often these scores err; estimate the share with scores of score-text --scorer "
            "linear:DIR, the classifier of train-classifier"
        )
    where = data or aligned.sidecar.get("data_prefix")
    if where is None or not Path(f"{where}.idx").exists():
        raise InputError(f"the tokens that {prefix} scored are not at {where}; say where with --data")
    tokens = TokenDataset.open(where)
    load_aligned(prefix, tokens, SCORES)
    return aligned, tokens


def _same_scorer(scorer: dict[str, Any], others: Sequence[Aligned]) -> None:
    for other in others:
        if other.sidecar["scorer"].get("identity") != scorer.get("identity"):
            raise MismatchError(f"{other.prefix} has scores of another classifier than the others; score it with one")


def _share(observed: Any, tpr: Any, fpr: Any) -> Any:
    return np.clip((observed - fpr) / np.maximum(np.subtract(tpr, fpr), 1e-9), 0, 1)


def _ratios(sample: Sample, generator: np.random.Generator) -> NDArray[np.float64]:
    """The suspected share in resamples of the documents, float64[R]."""
    count = len(sample.sizes)
    found = np.empty(_RESAMPLES)
    for r in range(_RESAMPLES):
        drawn = generator.integers(0, count, count)
        found[r] = sample.suspected[drawn].sum() / max(1, sample.sizes[drawn].sum())
    return found


def _outlook(sample: Sample, share: float, prior: float) -> list[dict[str, float]]:
    """What budgets leave and touch, by the classifier's probabilities, moved from the queries' share of toxic texts
    (``prior``) to the corpus'."""
    if not 0 < share < 1:
        return []
    ordered = np.sort(sample.scores.astype(np.float64))[::-1]
    odds = share / (1 - share) * (1 - prior) / prior
    abuse = ordered * odds / (ordered * odds + 1 - ordered)
    caught = np.concatenate([[0.0], np.cumsum(abuse)]) / len(abuse)
    rows = []
    for budget in (share / 2, share, min(1.0, 2 * share)):
        inside = float(caught[int(budget * len(abuse))])
        rows.append({"budget": budget, "left": max(0.0, share - inside), "touched": max(0.0, budget - inside)})
    return rows
