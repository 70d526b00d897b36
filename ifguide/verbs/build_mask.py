"""``ifguide build-mask``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifguide.config.options import named, option, options_of, part
from ifguide.masks.arguments import MaskOptions
from ifguide.masks.spans import arguments as span_arguments
from ifguide.masks.spans.arguments import SpanArguments
from ifguide.selection import SelectionSettings
from ifguide.system.progress import counted
from ifguide.verbs.tokenizer_files import TOKENIZER_OPTIONS, NamedTokenizer
from ifguide.verbs.writes import Writes, datasets

if TYPE_CHECKING:
    from ifguide.masks import BehaviourScores, SpanOptions, WordList

SUMMARY = "Select the tokens to penalise from their scores (Algorithm 1) and write the aligned uint8 mask."
EXAMPLE = "ifguide build-mask --scores data/corpus_scores --output data/corpus_mask --max-fraction 0.02"


_TOKENIZER = "for --wordlist and for spans of data without boundaries, as given to preprocess"


@dataclass(frozen=True, kw_only=True)
class BuildMask:
    """The options of this verb."""

    scores: Sequence[str] | None = option(
        None, metavar="S", kind="input", help="score datasets, one a corpus; they share one threshold and one budget"
    )
    category: Sequence[Sequence[str]] = option(
        (), nargs="+", action="append", metavar=("NAME FRACTION S", "S"), kind="input", words=2,
        help="instead of --scores, once for each behaviour: its name, its share of tokens and its scores (one a "
        "corpus); the mask holds what any behaviour selects",
    )  # fmt: skip
    output: Sequence[str] = option((), metavar="M", kind="output", help="masks to write, one a corpus")
    data: Sequence[str] | None = option(
        None, metavar="P", kind="input", help="token datasets, if they moved since they were scored"
    )
    selection: SelectionSettings = part(SelectionSettings)
    how: MaskOptions = part(MaskOptions)
    wordlist: str | None = option(
        None, metavar="FILE", kind="input", help="words or phrases, one a line, for --method wordlist, --rank-by words"
    )
    tokenizer: NamedTokenizer = part(NamedTokenizer, texts=dict.fromkeys(TOKENIZER_OPTIONS, _TOKENIZER))
    filtered_output: Sequence[str] = option(
        (), metavar="P", kind="output",
        help="with --method document: token datasets without the removed documents, one a corpus",
    )  # fmt: skip
    spans: SpanArguments = part(SpanArguments)


OPTIONS = BuildMask
WRITES = Writes(
    lambda args: datasets(
        [*args.output, *args.filtered_output, *span_arguments.suspects(args)],
        [Path(f"{prefix}.parts") for prefix in span_arguments.suspects(args)],
    ),
    named(BuildMask),
    settle=lambda args, settings: _settle(args, settings),
    keeps_result=True,
    is_replayed=True,
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ifguide.masks import build_masks

    asked = options_of(args, BuildMask)
    spans = span_arguments.settings_from(args)
    if spans is not None and args.method == span_arguments.CLASSIFIER:
        asked, spans = _score_suspects(args, asked, spans)
    if spans is not None and args.budget is not None:
        spans = span_arguments.take_estimate(args, spans, asked.scores or ())
        asked = replace(asked, selection=options_of(args, SelectionSettings))
    result = build_masks(
        _behaviours(asked, args),
        asked.output,
        asked.how,
        words=_words(asked),
        data_prefixes=asked.data,
        filtered_outputs=asked.filtered_output,
        spans=spans,
        ignoring=span_arguments.ignoring_from(args),
        quiet=False,
    )
    if not args.json:
        _show(result)
    return result


def _score_suspects(
    args: argparse.Namespace, asked: BuildMask, spans: SpanOptions
) -> tuple[BuildMask, SpanOptions]:  # fmt: skip
    """The classifier's scores of each corpus, which then stand for --span-scores, or for --scores where those are not
    given."""
    from ifguide.errors import InputError
    from ifguide.influence.text_scores import TextScoring, score_text
    from ifguide.scorers.device import device_of

    data = asked.data or ()  # `settings_from` saw to that
    if len(data) != len(asked.output):
        raise InputError(f"--output names {len(asked.output)} masks for {len(data)} corpora of --data")
    device = device_of("auto", args.scorer)
    made = span_arguments.suspects(args)
    for prefix, output in zip(data, made):
        score_text(TextScoring(prefix, args.scorer, output, spans.span, device, reader_of=spans.reader_of), quiet=False)
    return (asked, replace(spans, span_scores=made)) if asked.scores else (replace(asked, scores=made), spans)


def _settle(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """The budget that stands for none given."""
    if (args.scores or args.combine) and args.budget is None and not _has_budget(args):
        settings["--max-fraction"] = span_arguments.default_fraction(args)


def _has_budget(args: argparse.Namespace) -> bool:
    return args.max_fraction is not None or args.max_tokens is not None


def _behaviours(asked: BuildMask, args: argparse.Namespace) -> list[BehaviourScores]:
    """
    Raises:
        InputError: options that do not fit together.
    """
    from ifguide.errors import InputError
    from ifguide.masks import BehaviourScores

    scores: Sequence[str] = asked.scores or ()
    if not scores and not asked.category and args.combine:
        scores = args.combine[0][1:]
    if bool(scores) == bool(asked.category):
        raise InputError("give either --scores, or --category once for each behaviour")
    if scores:
        selection = asked.selection
        if not _has_budget(args):
            selection = replace(selection, max_fraction=span_arguments.default_fraction(args))
        return [BehaviourScores("", scores, selection)]
    if _has_budget(args):
        raise InputError("each --category has its own share of tokens; leave out --max-fraction and --max-tokens")
    behaviours = []
    for given in asked.category:
        try:
            name, fraction, scores = given[0], float(given[1]), given[2:]
        except (IndexError, ValueError):
            scores = []
        if not scores or not name:
            raise InputError(
                f"--category {' '.join(given)}: expected a name, a share of tokens and score datasets, "
                "as in --category insults 0.01 data/insult_scores"
            )
        behaviours.append(BehaviourScores(name, scores, replace(asked.selection, max_fraction=fraction)))
    return behaviours


def _words(asked: BuildMask) -> WordList | None:
    from ifguide.data.text.content import type_meant
    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.errors import InputError
    from ifguide.masks import WordList

    if asked.wordlist is None:
        return None
    named = asked.tokenizer
    tokenizer_type = type_meant(named.tokenizer_type, named.vocab_file)
    if tokenizer_type is None:
        raise InputError("--wordlist needs --tokenizer-type and its files, as given to preprocess")
    tokenizer = build_tokenizer(tokenizer_type, named.vocab_file, named.merge_file)
    files = [path for path in (named.vocab_file, named.merge_file) if path is not None]
    return WordList.read(asked.wordlist, tokenizer, files)


def _show(result: dict[str, Any]) -> None:
    for corpus in result["corpora"]:
        if "output" in corpus:
            share = corpus["selected"] / corpus["tokens"]
            print(
                f"{corpus['output']}: {corpus['selected']:,} of {counted(corpus['tokens'], 'token')} selected "
                f"({share:.2%})"
            )
        if "filtered" in corpus:
            left = corpus["filtered"]
            size = f"{counted(left['documents'], 'document')}, {counted(left['tokens'], 'token')}"
            print(f"{left['output']}: {size} left")
    named = {f"{name}: ": about | about["counts"] for name, about in result.get("categories", {}).items()}
    for label, about in (named or {"": result}).items():
        if "spans" in about:
            print(f"{label}{span_arguments.show(about)}")
            continue
        if "documents_ranked" in about:
            print(
                f"{label}{about['documents_removed']:,} of {counted(about['documents'], 'document')} removed, "
                f"{counted(about['tokens_removed'], 'token')} of a budget of {about['budget']}"
            )
            continue
        print(
            f"{label}{counted(about['toxic'], 'token')} above {about['threshold']:.4g}, budget "
            f"{counted(about['budget'], 'token')}"
        )
    for line in result["shortfall"]:
        print(line)
