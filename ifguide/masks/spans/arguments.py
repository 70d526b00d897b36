"""The options of ``build-mask`` that select by spans."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ifguide.config.options import given, option
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, IFGuideWarning, InputError
from ifguide.masks.ignoring import HTML_ENTITIES, Ignoring
from ifguide.masks.spans import share
from ifguide.masks.spans.options import SpanOptions
from ifguide.selection.settings import EACH, HIGHEST, WITHIN_ORDERS, WITHIN_RULES, SelectionSettings
from ifguide.system.progress import counted

TOKEN, CLASSIFIER = "token", "classifier"

# what has no meaning of Algorithm 1's options
_WITHOUT_MEANING = ("--threshold-quantile", "--window", "--unit-tokens", "--include-eod")
# what has a meaning for Algorithm 1 too, or none alone
_ALSO_FOR_TOKENS = ("--span", "--ignore-pattern", "--budget-cap")
_GROUP = "spans: whole lines, sentences or windows, or tokens within them"


@dataclass(frozen=True, kw_only=True)
class SpanArguments:
    """As a person gives them; `SpanOptions` are what follows from them."""

    ignore_pattern: str | None = option(
        None, nargs="?", const=HTML_ENTITIES, metavar="RE",
        help="tokens of text that matches have no part in the threshold and in no mean, and are never selected; HTML "
        "entities where RE is not given. Needs the tokenizer",
    )  # fmt: skip
    span: str = option(
        TOKEN, metavar="WHAT", group=_GROUP,
        help="token (Algorithm 1; default), line, sentence, or window:W (each token by the mean of W neighbours on "
        "each side); spans go by their mean score",
    )  # fmt: skip
    shrink: float = option(
        0.0, metavar="K", group=_GROUP,
        help="score of a span: sum / (tokens + K); with 0 (default) lines and sentences under 3 tokens are left out",
    )  # fmt: skip
    span_scores: Sequence[str] = option(
        (), metavar="S", kind="input", group=_GROUP,
        help="rank spans by these (a classifier's, by score-text), one a corpus, instead of --scores",
    )  # fmt: skip
    scorer: str | None = option(
        None, metavar="SPEC", kind="scorer", group=_GROUP,
        help="of --method classifier, as for score-text: linear:FOLDER, detoxify:unbiased, ...",
    )  # fmt: skip
    span_fraction: float | None = option(
        None, metavar="A", group=_GROUP,
        help="take spans up to this share of all tokens, and of those only --tokens-within",
    )  # fmt: skip
    tokens_within: float | None = option(
        None, metavar="PHI", group=_GROUP,
        help="of each span only this share of its tokens, those with the highest --scores; the budget is A times PHI, "
        "and --max-fraction stands for the one of the two that is not given",
    )  # fmt: skip
    within_rule: str = option(
        EACH, choices=WITHIN_RULES, group=_GROUP,
        help="each: PHI of every span's tokens (default); global: PHI of all spans' tokens together",
    )  # fmt: skip
    tokens_within_order: str = option(
        HIGHEST, choices=WITHIN_ORDERS, group=_GROUP,
        help="highest scores (default); random (by --seed) and lowest are controls",
    )  # fmt: skip
    budget: str | None = option(
        None, choices=("auto",), group=_GROUP,
        help="auto: the estimated share of abuse, by the scores that rank the spans (a classifier's); with "
        "--tokens-within it is the spans' share A",
    )  # fmt: skip
    budget_cap: float = option(
        0.10, metavar="F", group=_GROUP, help="most that --budget auto takes (default: 0.10)"
    )  # fmt: skip
    clean_data: str | None = option(
        None, metavar="S", kind="input", group=_GROUP,
        help="of --budget auto: scores of the same classifier for text known to be clean",
    )  # fmt: skip
    combine: Sequence[Sequence[str]] = option(
        (), nargs="+", action="append", metavar=("WEIGHT S", "S"), kind="input", words=1, group=_GROUP,
        help="rank spans by the weighted sum of their ranks in several scores: repeat it, a weight and one S a corpus",
    )  # fmt: skip
    within: Sequence[Sequence[str]] = option(
        (), nargs="+", action="append", metavar=("THRESHOLD S", "S"), kind="input", words=1, group=_GROUP,
        help="only spans whose score there is above the threshold (default: the scorer's own; of influence the 0.9 "
        "quantile of spans)",
    )  # fmt: skip


def settings_from(args: argparse.Namespace) -> SpanOptions | None:
    """How to select by spans; None for Algorithm 1.

    Raises:
        InputError: options that do not go together.
    """
    span = "line" if args.method == CLASSIFIER and args.span == TOKEN else args.span
    if span == TOKEN:
        useless = [flag for flag in given(args, SpanArguments) if flag not in _ALSO_FOR_TOKENS]
        if useless:
            raise InputError(f"{', '.join(useless)} selects by spans; give --span line or --span sentence too")
        return None
    if args.budget is not None:
        _check_auto(args)
    elif args.clean_data is not None:
        raise InputError("--clean-data is of --budget auto; give that too")
    if args.method == CLASSIFIER:
        _check_classifier(args)
    elif args.scorer is not None:
        raise InputError("--scorer is of --method classifier; give that too, or run score-text and give --span-scores")
    meaningless = [flag for flag in given(args, SelectionSettings) if flag in _WITHOUT_MEANING]
    if meaningless:
        raise InputError(
            f"{', '.join(meaningless)} has no meaning for --span {span}; leave it out, or take --span token"
        )
    if args.span_fraction is not None and args.tokens_within is not None:
        if args.max_fraction is not None or args.category:
            which = "--category" if args.category else "--max-fraction"
            raise InputError(
                f"--span-fraction times --tokens-within is the budget already, and {which} gives another; "
                "leave out one of the three"
            )
        if args.max_tokens is not None:
            raise InputError("--span-fraction times --tokens-within is the budget already; leave out --max-tokens")
    return SpanOptions(
        span=span,
        shrink=args.shrink,
        span_scores=args.span_scores,
        span_fraction=args.span_fraction,
        tokens_within=args.tokens_within,
        rule=args.within_rule,
        order=args.tokens_within_order,
        seed=args.seed,
        combine=[(_number("combine", row), row[1:]) for row in args.combine],
        within=[(None if row[0] == "default" else _number("within", row), row[1:]) for row in args.within],
        reader_of=_reader_of(args),
    )


def suspects(args: argparse.Namespace) -> list[str]:
    """Where --method classifier keeps its scores; [] for other methods."""
    return [f"{output}.suspects" for output in args.output] if args.method == CLASSIFIER else []


def _check_classifier(args: argparse.Namespace) -> None:
    faults = []
    if args.scorer is None or not args.data:
        faults.append("--method classifier scores the text of the data; give --scorer and --data")
    if args.span_scores or args.combine:
        faults.append("--method classifier ranks spans by its own scores; leave out --span-scores and --combine")
    if args.category:
        faults.append("--method classifier has one ranking; leave out --category")
    if args.scores and args.tokens_within is None and args.span_fraction is None:
        faults.append("with --method classifier, --scores say which tokens of a span are taken; give --tokens-within")
    if len(faults) == 1:
        raise InputError(faults[0])
    if faults:
        raise ConfigError(faults)


def take_estimate(args: argparse.Namespace, spans: SpanOptions, scores: Sequence[str]) -> SpanOptions:
    """Put the estimated share of abuse where --budget auto stands for it: into A where tokens within spans are taken,
    else into --max-fraction.

    Raises:
        InputError: no share can be estimated.
    """
    ranking = list(spans.span_scores) or list(scores)
    estimate = share.estimate_share(
        ranking, clean=args.clean_data, data_prefixes=args.data, seed=args.seed, quiet=False
    )
    said = "--span-fraction 0.01" if spans.takes_tokens else "--max-fraction 0.01"
    budget = share.budget_of(estimate, args.budget_cap, said)
    if not args.json:
        print("\n".join(share.lines(estimate)))
    if budget < estimate.share:
        warnings.warn(
            f"--budget-cap holds the budget at {budget:.2%} of an estimated {estimate.share:.2%}",
            IFGuideWarning,
            stacklevel=2,
        )
    if spans.takes_tokens:
        args.span_fraction = budget
        return replace(spans, span_fraction=budget)
    args.max_fraction = budget
    return spans


def _check_auto(args: argparse.Namespace) -> None:
    budgets = [name for name in ("max_fraction", "max_tokens", "span_fraction") if getattr(args, name) is not None]
    if budgets or args.category:
        raise InputError(f"--budget auto is a budget; leave out {_flags(budgets) or '--category'}")
    if args.combine:
        raise InputError("--budget auto needs one classifier's scores to rank the spans; leave out --combine")
    if not 0 < args.budget_cap <= 1:
        raise InputError(f"--budget-cap {args.budget_cap:g}: must be above 0 and at most 1")


def ignoring_from(args: argparse.Namespace) -> Ignoring | None:
    """What --ignore-pattern names."""
    return None if args.ignore_pattern is None else Ignoring(args.ignore_pattern, _reader_of(args))


def _reader_of(args: argparse.Namespace) -> Callable[[str], TextReader]:
    return lambda data: TextReader.of_data(data, args.tokenizer_type, args.vocab_file, args.merge_file)


def default_fraction(args: argparse.Namespace) -> float:
    """The budget that stands for none given."""
    if args.span_fraction is not None and args.tokens_within is not None:
        return args.span_fraction * args.tokens_within
    assert SelectionSettings.max_fraction is not None
    return SelectionSettings.max_fraction


def show(about: dict[str, Any]) -> str:
    """What was selected, for a person; ``about``: counts and threshold."""
    short = f", {about['spans_short']:,} too short" if about.get("spans_short") else ""
    lowest = f" (lowest score {about['threshold']:.4g})" if about["threshold"] is not None else ""
    tokens = f" of {counted(about['span_tokens'], 'token')}" if "span_tokens" in about else ""
    return (
        f"{about['spans_selected']:,} of {counted(about['spans'], 'span')}{short} selected{lowest}{tokens}; "
        f"budget {counted(about['budget'], 'token')}, {about['budget'] - about['selected']:,} left"
    )


def _number(name: str, row: list[str]) -> float:
    try:
        value = float(row[0])
    except ValueError:
        value = math.nan
    if math.isnan(value) or len(row) < 2:
        what = "a weight" if name == "combine" else "a threshold (a number, or default)"
        raise InputError(f"--{name} {' '.join(row)}: expected {what} and score datasets, one a corpus")
    return value


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
