"""Masks of spans: lines, sentences or windows by their mean scores (M3b), and of tokens within them (M3c)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned, load_aligned
from ifguide.data.passages.boundaries import find_boundaries
from ifguide.data.sidecar import SCORES
from ifguide.errors import MismatchError
from ifguide.masks.inputs import BehaviourScores, Inputs
from ifguide.masks.outcome import Outcome
from ifguide.masks.shortfall import of_spans
from ifguide.masks.spans.options import Prefixes, SpanOptions
from ifguide.selection import (
    Chosen,
    Passages,
    PassageSettings,
    ScoredCorpus,
    Source,
    Span,
    Tally,
    paint_chosen,
    scan,
    select_passages,
    select_within,
    strengths_of,
)
from ifguide.selection.ranks import above, combined, quantile_of
from ifguide.selection.settings import WINDOW
from ifguide.system.progress import Progress

# spans above this quantile of their scores are suspects of influence, which has no threshold of its own
_INFLUENCE_QUANTILE = 0.9
_SCORER_THRESHOLD = 0.5

OnSpan = Callable[[Span], object]


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of all corpora.

    Attributes:
        influence: whether they are signed: 0 is what a token without any effect has.
    """

    aligned: list[Aligned]
    source: Source

    @property
    def influence(self) -> bool:
        return not all("scorer" in one.sidecar for one in self.aligned)

    @property
    def own_threshold(self) -> float | None:
        """That the scorer's record names; None of influence."""
        if self.influence:
            return None
        return float(max(one.sidecar["scorer"].get("threshold", _SCORER_THRESHOLD) for one in self.aligned))


def select_by_spans(
    behaviours: Sequence[BehaviourScores], inputs: Inputs, options: SpanOptions, encoding: str, quiet: bool
) -> Outcome:
    """What `build_masks` paints.

    Raises:
        InputError: files that cannot be used, boundaries that cannot be made, a cascade's scores.
        NumericsError: a score is NaN or infinite.
    """
    boundaries = _boundaries(inputs, options, quiet)
    own = [_of(row, inputs, boundaries) for row in inputs.scores]
    ranking = _open(options.span_scores, inputs, boundaries) if options.span_scores else None
    combine = [(weight, _open(row, inputs, boundaries)) for weight, row in options.combine]
    within = [(threshold, _open(row, inputs, boundaries)) for threshold, row in options.within]
    extra = [*([ranking] if ranking else []), *(scores for _, scores in combine), *(scores for _, scores in within)]
    for scores in (*own, *extra):
        _refuse_cascade(scores)

    found: list[Chosen] = []
    about: dict[str, dict[str, Any]] = {}
    shortfall: list[str] = []
    passes = 2 * len(combine) + len(within) + sum(threshold is None for threshold, _ in options.within)
    passes = len(behaviours) * (passes + (not combine) + options.takes_tokens)
    with Progress(passes * own[0].source.num_tokens, "tokens", "select", quiet=quiet) as progress:

        def on_span(span: Span) -> None:
            progress.update(len(span))

        for behaviour, scores in zip(behaviours, own):
            chosen, facts = _select(behaviour, scores, ranking, combine, within, options, on_span)
            found.append(chosen)
            about[behaviour.name] = facts
            shortfall += of_spans(behaviour, facts["counts"], facts.pop("did_not_fit"), options.takes_tokens)
    strengths = [
        strengths_of(chosen.passages.scores, chosen.passages.sizes)
        if encoding == "graded"
        else np.ones(len(chosen.passages), np.uint8)
        for chosen in found
    ]

    def paint(span: Span) -> NDArray[np.uint8]:
        codes = np.zeros(len(span), np.uint8)
        for scores, chosen, strength in zip(own, found, strengths):
            np.maximum(codes, paint_chosen(scores.source, span, chosen, strength), out=codes)
        return codes

    records = [
        {"prefix": str(Path(one.prefix).absolute()), "fingerprint": one.sidecar["fingerprint"]}
        for scores in extra
        for one in scores.aligned
    ]
    return Outcome(paint, about, [], shortfall=shortfall, span_scores=records)


def _select(
    behaviour: BehaviourScores,
    scores: _Scores,
    ranking: _Scores | None,
    combine: Sequence[tuple[float, _Scores]],
    within: Sequence[tuple[float | None, _Scores]],
    options: SpanOptions,
    on_span: OnSpan,
) -> tuple[Chosen, dict[str, Any]]:
    """(what is selected, what a sidecar says of it)."""
    source, ranked, tally = scores.source, ranking or scores, Tally()
    settings = options.passages(positive=ranked.influence and not combine)
    pieces: Iterator[Passages]
    if combine:
        rows = [(weight, each.source) for weight, each in combine]
        pieces = combined(rows, settings, tally, on_span)
    else:
        pieces = scan(ranked.source, settings, tally, on_span)
    thresholds = []
    for threshold, each in within:
        limit = threshold if threshold is not None else each.own_threshold
        if limit is None:
            limit = quantile_of(scan(each.source, settings, None, on_span), _INFLUENCE_QUANTILE)
        thresholds.append(limit)
        pieces = above(pieces, scan(each.source, settings, None, on_span), limit)
    parameters: dict[str, Any] = options.record()
    if within:
        parameters["within"] = thresholds
    if options.takes_tokens:
        inside = options.within_settings(behaviour)
        spans = select_passages(pieces, inside.span_budget(source.num_tokens), settings.positive)
        chosen, budget = select_within(source, spans, inside, on_span), inside.budget(source.num_tokens)
        parameters |= {"span_fraction": inside.spans, "tokens_within": inside.share}
    else:
        budget = behaviour.settings.budget(source.num_tokens)
        spans = chosen = select_passages(pieces, budget, settings.positive)
        parameters |= {"max_fraction": behaviour.settings.max_fraction, "max_tokens": behaviour.settings.max_tokens}
    counts = {
        "tokens": source.num_tokens,
        "spans": tally.ranked,
        "spans_short": tally.short,
        "spans_selected": len(spans.passages),
        "span_tokens": spans.passages.num_tokens,
        "selected": chosen.passages.num_tokens,
        "budget": budget,
    }
    if settings.kind == WINDOW:
        del counts["spans_short"], counts["span_tokens"]
    facts = {"threshold": spans.threshold, "counts": counts, "parameters": parameters}
    return chosen, facts | {"did_not_fit": spans.did_not_fit}


def _boundaries(inputs: Inputs, options: SpanOptions, quiet: bool) -> list[NDArray[np.uint8] | None]:
    """By corpus; None where windows need none."""
    if PassageSettings.parse(options.span).kind == WINDOW:
        return [None] * len(inputs.tokens)
    found: list[NDArray[np.uint8] | None] = []
    for tokens in inputs.tokens:
        assert tokens is not None  # EOD tokens are in no span, so they were asked for
        found.append(find_boundaries(tokens, options.reader_of, quiet).values)
    return found


def _of(row: list[Aligned], inputs: Inputs, boundaries: Sequence[NDArray[np.uint8] | None]) -> _Scores:
    # what is left out of the behaviours' scores is left out of all others'
    corpora: list[ScoredCorpus] = [
        replace(corpus, name=aligned.prefix, scores=aligned.values, boundaries=marks)
        for corpus, aligned, marks in zip(inputs.sources[0].corpora, row, boundaries)
    ]
    return _Scores(row, Source(corpora))


def _open(row: Prefixes, inputs: Inputs, boundaries: Sequence[NDArray[np.uint8] | None]) -> _Scores:
    """
    Raises:
        MismatchError: scores of other tokens.
    """
    return _of([load_aligned(prefix, tokens, SCORES) for prefix, tokens in zip(row, inputs.tokens)], inputs, boundaries)


def _refuse_cascade(scores: _Scores) -> None:
    for one in scores.aligned:
        if one.sidecar.get("cascade") is not None:
            raise MismatchError(
                f"{one.prefix} are a cascade's scores: most of them are a proxy's, and a span's mean rests on all of "
                "its tokens; score without a cascade, or leave out --span"
            )
