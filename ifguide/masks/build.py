"""Scores -> masks: Algorithm 1 (M3), or a control of the same size, for one or several corpora at once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.sidecar import PENALTIES
from ifguide.data.text.reader import TextReader, describe
from ifguide.data.text.record import tokenizer_difference
from ifguide.errors import IFGuideWarning, InputError, MismatchError
from ifguide.masks.arguments import MaskOptions, check_arguments
from ifguide.masks.documents import choose_documents
from ifguide.masks.exactness import Exactness
from ifguide.masks.filtering import write_filtered
from ifguide.masks.ignoring import Ignoring
from ifguide.masks.inputs import BehaviourScores, Inputs, open_inputs
from ifguide.masks.outcome import Outcome, Paint
from ifguide.masks.sanity import oddities
from ifguide.masks.shortfall import of_selection, of_words
from ifguide.masks.spans.selecting import SpanOptions, select_by_spans
from ifguide.masks.words import WordList, word_positions
from ifguide.selection import (
    SelectionSettings,
    Source,
    Span,
    graded_strengths,
    paint_positions,
    paint_windows,
    random_positions,
    select,
)
from ifguide.selection.algorithm import PASSES
from ifguide.selection.controls import DOCUMENT_PASSES
from ifguide.selection.documents import R
from ifguide.system.files import hash_value
from ifguide.system.progress import Progress
from ifguide.system.provenance import origin

_DEFAULT = MaskOptions()
_SEEDED = ("random", "wordlist")


def build_mask(
    scores: str | Path,
    output: str | Path,
    settings: SelectionSettings | None = None,
    options: MaskOptions = _DEFAULT,
    *,
    data_prefix: str | Path | None = None,
    **more: Any,
) -> dict[str, Any]:
    """`build_masks` for one corpus and one direction."""
    behaviour = BehaviourScores("", [scores], settings or SelectionSettings())
    prefixes = None if data_prefix is None else [data_prefix]
    return build_masks([behaviour], [output], options, data_prefixes=prefixes, **more)


def build_masks(
    behaviours: Sequence[BehaviourScores],
    outputs: Sequence[str | Path],
    options: MaskOptions = _DEFAULT,
    *,
    words: WordList | None = None,
    data_prefixes: Sequence[str | Path] | None = None,
    filtered_outputs: Sequence[str | Path] = (),
    spans: SpanOptions | None = None,
    ignoring: Ignoring | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the mask ``outputs[k].{bin,idx,json}`` of every corpus k.

    All corpora share one threshold, one ranking and one budget. Every behaviour has its own; a mask holds the
    tokens that any behaviour selects, with the largest of their strengths. The files of one mask are replaced
    together, masks one after another: after a kill the same command writes them all again.

    Args:
        behaviours: at least one; each names the scores of all corpora.
        outputs: one a corpus; may be empty if ``filtered_outputs`` are given.
        options: the method, its seed and the encoding.
        words: of ``wordlist``.
        data_prefixes: the tokens of each corpus, if they moved since they were scored.
        filtered_outputs: of ``document``, one a corpus: the tokens without the dropped documents.
        spans: select lines, sentences or windows (M3b), or tokens within them (M3c), instead of Algorithm 1;
            ``influence`` and ``classifier`` only.
        ignoring: tokens that have no part in τ and in no mean, and are never selected.
        quiet: show no progress.

    Returns:
        ``method``, ``tokens``, ``selected``, ``fraction``, ``seconds``, and ``corpora``: ``output``, ``tokens``,
        ``selected`` (and ``filtered``) of each. For one direction its ``threshold`` and counts, for several
        ``categories``: those of each. ``shortfall``: why less than a budget is selected, and which flag changes it, a
        line each; ``warnings``: what is odd about the masks. For one corpus its ``output`` (and ``filtered``).

    Raises:
        InputError: settings or files that cannot be used.
        MismatchError: scores of other tokens than they should be.
        NumericsError: a score is NaN or infinite.
        OutOfSpaceError: the disk is full; earlier files are untouched.
    """
    started = time.monotonic()
    method, encoding = options.method, options.encoding
    check_arguments(behaviours, outputs, options, words, data_prefixes, filtered_outputs, spans, ignoring)
    needs_tokens = words is not None or bool(filtered_outputs) or ignoring is not None
    inputs = open_inputs(behaviours, data_prefixes, needs_tokens, ignoring, quiet)
    if words is not None:
        _check_tokenizer(words, inputs)
    exactness = Exactness.of(inputs.scores, [behaviour.settings for behaviour in behaviours], inputs.sources)
    if exactness and ignoring is not None:
        raise InputError(
            "--ignore-pattern makes another mask than the one that a cascade's scores are for; leave it out"
        )
    if spans is not None:
        outcome = select_by_spans(behaviours, inputs, spans, encoding, quiet)
    else:
        outcome = _decide(behaviours, inputs, options, words, quiet)
    source = inputs.sources[0]
    record = _record(outcome, inputs, options, words, ignoring)
    if exactness:
        record["cascade"] = exactness.check(_deciding(outcome, source))
    dropped = [] if outcome.dropped is None else _by_corpus(source, outcome.dropped)
    for k in range(len(filtered_outputs)):
        if len(dropped[k]) == len(source.corpora[k].starts) - 1:
            raise InputError(f"no document of {source.corpora[k].name} would be left; give a smaller budget")
    corpora: list[dict[str, Any]] = [{"tokens": int(corpus.starts[-1])} for corpus in source.corpora]
    with Progress(source.num_tokens if outputs else 0, "tokens", "write mask", quiet=quiet or not outputs) as progress:
        for k, prefix in enumerate(outputs):
            like = inputs.tokens[k] if data_prefixes else None
            counts = record["counts"] | {"tokens": corpora[k]["tokens"], "selected": 0}
            codes = _counted(source, k, outcome.paint, counts, progress)
            sidecar = record | {"encoding": encoding, "counts": counts}
            write_aligned(prefix, like or inputs.scores[0][k], codes, np.uint8, sidecar)
            corpora[k] |= {"selected": counts["selected"], "output": str(prefix)}
    for k, prefix in enumerate(filtered_outputs):
        data = inputs.tokens[k]
        assert data is not None  # `open_inputs` was told that they are needed
        kept = write_filtered(prefix, data, dropped[k], record)
        corpora[k]["filtered"] = {"output": str(prefix), **kept}
    result = _result(outcome, corpora, method, started)
    odd = _oddities(outputs, inputs)
    for line in odd:
        warnings.warn(line, IFGuideWarning, stacklevel=2)
    return result | {"warnings": odd}


def _decide(
    behaviours: Sequence[BehaviourScores],
    inputs: Inputs,
    options: MaskOptions,
    words: WordList | None,
    quiet: bool,
) -> Outcome:
    source, method = inputs.sources[0], options.method
    passes = DOCUMENT_PASSES if method == "document" else PASSES * len(behaviours)
    with Progress(passes * source.num_tokens, "tokens", "select", quiet=quiet) as progress:
        if method == "document":
            return choose_documents(behaviours[0], inputs, options.rank_by, words, progress)
        outcome = _influence(behaviours, inputs.sources, options.encoding, progress)
        if method == "influence":
            return outcome
        size = sum(int(np.count_nonzero(outcome.paint(span))) for span in source.spans())
        shortfall = outcome.shortfall
        if words is not None:
            positions = word_positions(source, words, size, options.seed)
            shortfall = shortfall + of_words(len(positions), size)
        else:
            positions = random_positions(source, size, options.seed)
    return Outcome(
        lambda span: paint_positions(span, positions), outcome.behaviours, outcome.centres, shortfall=shortfall
    )


def _influence(
    behaviours: Sequence[BehaviourScores], sources: Sequence[Source], encoding: str, progress: Progress
) -> Outcome:  # fmt: skip
    selections = [
        select(source, behaviour.settings, lambda span: progress.update(len(span)))
        for behaviour, source in zip(behaviours, sources)
    ]
    strengths = [
        graded_strengths(found) if encoding == "graded" else np.ones(len(found.centres), np.uint8)
        for found in selections
    ]

    def paint(span: Span) -> NDArray[np.uint8]:
        codes = np.zeros(len(span), np.uint8)
        for source, found, strength in zip(sources, selections, strengths):
            np.maximum(codes, paint_windows(source, span, found, strength), out=codes)
        return codes

    about = {
        behaviour.name: {"threshold": found.threshold, "counts": found.counts, "parameters": asdict(behaviour.settings)}
        for behaviour, found in zip(behaviours, selections)
    }
    shortfall = [
        line
        for behaviour, found in zip(behaviours, selections)
        for line in of_selection(behaviour, len(found.centres), found.counts)
    ]
    return Outcome(paint, about, [found.centres for found in selections], shortfall=shortfall)


def _deciding(outcome: Outcome, source: Source) -> list[NDArray[np.int64]]:
    """By behaviour: ascending global positions of the tokens whose scores decide what is selected, int64[C]."""
    if outcome.dropped is None:
        return outcome.centres
    # a document is ranked by all of its tokens
    first, lengths = source.starts[outcome.dropped], np.diff(source.starts)[outcome.dropped]
    before = np.cumsum(lengths) - lengths
    return [np.repeat(first - before, lengths) + np.arange(int(lengths.sum()))]


def _counted(
    source: Source, corpus: int, paint: Paint, counts: dict[str, int], progress: Progress
) -> Iterator[NDArray[np.uint8]]:
    """The mask of a corpus in chunks; ``counts["selected"]`` grows with them (the sidecar is written after them)."""
    for span in source.spans(corpus):
        codes = paint(span)
        counts["selected"] += int(np.count_nonzero(codes))
        yield codes
        progress.update(len(span))


def _record(
    outcome: Outcome,
    inputs: Inputs,
    options: MaskOptions,
    words: WordList | None,
    ignoring: Ignoring | None,
) -> dict[str, Any]:
    """The part of the sidecar that all outputs share."""
    single = outcome.behaviours.get("")
    parameters: dict[str, Any] = {"method": options.method}
    if options.rank_by != R:
        parameters["rank_by"] = options.rank_by
    if options.method in _SEEDED:
        parameters["seed"] = options.seed
    if ignoring is not None:
        parameters |= {"ignore_pattern": ignoring.pattern, "ignored": inputs.sources[0].num_ignored}
    if words is not None:
        parameters["words"] = len(words.words)
    scores = inputs.score_records()
    identity = hash_value(
        [
            parameters,
            options.encoding,
            {name: about["parameters"] for name, about in outcome.behaviours.items()},
            [record["fingerprint"] for record in scores],
            [record["hash"] for record in words.record["inputs"]] if words else [],
            *([[record["fingerprint"] for record in outcome.span_scores]] if outcome.span_scores else []),
        ]
    )
    return {
        "parameters": parameters | (single["parameters"] if single else {}),
        "counts": dict(single["counts"]) if single else {},
        **({"threshold": single["threshold"]} if single else {"categories": outcome.behaviours}),
        "scores": scores[0] if len(scores) == 1 else scores,
        **({"span_scores": outcome.span_scores} if outcome.span_scores else {}),
        **(words.record if words else {}),
        "identity": identity,
        **origin(),
    }


def _result(outcome: Outcome, corpora: list[dict[str, Any]], method: str, started: float) -> dict[str, Any]:
    single = outcome.behaviours.get("")
    result: dict[str, Any] = {"method": method, "tokens": sum(corpus["tokens"] for corpus in corpora)}
    if single:
        result |= {"threshold": single["threshold"], **single["counts"]}
    else:
        result["categories"] = outcome.behaviours
    if "output" in corpora[0]:
        result["selected"] = sum(corpus["selected"] for corpus in corpora)
        result["fraction"] = result["selected"] / result["tokens"]
    result["shortfall"] = outcome.shortfall
    if len(corpora) == 1:
        result |= {key: corpora[0][key] for key in ("output", "filtered") if key in corpora[0]}
    return {**result, "corpora": corpora, "seconds": round(time.monotonic() - started, 3)}


def _oddities(outputs: Sequence[str | Path], inputs: Inputs) -> list[str]:
    found = []
    for prefix, tokens in zip(outputs, inputs.tokens):
        if tokens is None:
            continue
        try:
            token_bytes = TextReader.of_data(tokens.prefix).token_bytes
        except (InputError, ImportError):  # nothing says which tokenizer, or its library is not here
            token_bytes = None
        found += oddities(load_aligned(prefix, None, PENALTIES), tokens, token_bytes)
    return found


def _by_corpus(source: Source, documents: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Ascending document numbers of all corpora -> numbers inside each corpus."""
    firsts = np.cumsum([0, *(len(corpus.starts) - 1 for corpus in source.corpora)])
    cuts = np.searchsorted(documents, firsts)
    return [documents[cuts[k] : cuts[k + 1]] - firsts[k] for k in range(len(source.corpora))]


def _check_tokenizer(words: WordList, inputs: Inputs) -> None:
    for aligned in inputs.scores[0]:
        if difference := tokenizer_difference(aligned.sidecar.get("tokenizer"), describe(words.tokenizer)):
            raise MismatchError(
                f"the tokenizer is not the one that the tokens of {aligned.prefix} were made with ({difference}); "
                "give that one"
            )
