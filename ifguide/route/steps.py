"""The commands between text and mask, in order, each with its whole line of options.

Nothing is known of a step but its command: whether it is done is what its own product says (`ifguide.system.outputs`),
so the commands can be run one by one, in this order, and either way goes on where the other one stopped.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from ifguide.data.preprocess import SUFFIX
from ifguide.data.text.content import DEFAULT_TYPE
from ifguide.quickstart.masking import MOST_SUSPECTED, SPAN, TOKENS_WITHIN
from ifguide.route.options import MAX_FRACTION, WITHIN, RouteOptions

DATA, CLASSIFIER, SUSPECTS, FACTORS = "corpus", "classifier", "suspects", "factors"
SCORES, MASK, STATISTICS, PAGE = "scores", "mask", "statistics", "mask.html"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        verb: of ``ifguide``.
        arguments: after it.
        what: it does, in words.
        reads: the verbs whose products it reads.
        serves: of a step that makes nothing: it is run only if one of these verbs is. Empty: always.
        shows: how many lines of what it says are for this place: the first ones, below 0 the last ones; None: all.
    """

    verb: str
    arguments: tuple[str, ...]
    what: str
    reads: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    shows: int | None = None

    @property
    def command(self) -> str:
        """As a person types it."""
        return shlex.join(["ifguide", self.verb, *self.arguments])


def data_of(asked: RouteOptions) -> str:
    """Prefix of the tokens."""
    return asked.data if asked.data is not None else f"{asked.output / DATA}{SUFFIX}"


def tokenizer_of(asked: RouteOptions) -> list[str]:
    """The options that name the tokenizer of the texts: those that were given, else the proxy's own."""
    if asked.tokenizer_type is not None:
        files = {"--vocab-file": asked.vocab_file, "--merge-file": asked.merge_file}
        named = [word for flag, path in files.items() if path for word in (flag, path)]
        return ["--tokenizer-type", asked.tokenizer_type, *named]
    return ["--tokenizer-type", DEFAULT_TYPE, "--vocab-file", str(Path(asked.model) / "tokenizer.json")]


def steps_of(asked: RouteOptions) -> list[Step]:
    """All commands. Those that are cheap and can refuse the inputs come before the long ones."""
    within = asked.recipe == WITHIN
    steps = [_classifier(asked)] if within else []
    if asked.input is not None:
        steps.append(_preprocess(asked))
    steps.append(_plan(asked))
    if within:
        steps.append(_suspects(asked))
    return [*steps, _factors(asked), _scores(asked), _mask(asked), *_looks(asked)]


def _out(asked: RouteOptions, name: str) -> str:
    return str(asked.output / name)


def _queries(asked: RouteOptions) -> list[str]:
    return ["--toxic-queries", asked.toxic_queries, "--safe-queries", asked.safe_queries]


def _given_tokenizer(asked: RouteOptions) -> list[str]:
    """For verbs that otherwise ask the data's record, which preprocess always writes."""
    return tokenizer_of(asked) if asked.data is not None and asked.tokenizer_type is not None else []


def _classifier(asked: RouteOptions) -> Step:
    words = [*_queries(asked), "--seed", str(asked.seed), "--output", _out(asked, CLASSIFIER)]
    return Step("train-classifier", tuple(words), "a classifier of the queries")


def _preprocess(asked: RouteOptions) -> Step:
    """Where lines and sentences end is noted for either recipe, so that the tokens are the same for both."""
    words = ["--input", *(asked.input or ()), *tokenizer_of(asked), "--append-eod", "--spans"]
    workers = ["--workers", str(asked.workers)] if asked.workers > 1 else []
    words += [*workers, "--output-prefix", _out(asked, DATA)]
    return Step("preprocess", tuple(words), "text to tokens")


def _pass(asked: RouteOptions) -> list[str]:
    """What plan, fit-factors and score share."""
    length = [] if asked.seq_length is None else ["--seq-length", str(asked.seq_length)]
    return ["--model", asked.model, "--data", data_of(asked), *length, "--batch-size", str(asked.batch_size)]


def _after_text(asked: RouteOptions, *more: str) -> tuple[str, ...]:
    return (*(["preprocess"] if asked.input is not None else []), *more)


def _plan(asked: RouteOptions) -> Step:
    tokens = str(asked.factor_tokens)
    words = [*_pass(asked), "--factor-tokens", tokens, "--method", asked.method, "--disk", str(asked.output)]
    serves = ("fit-factors", "score")
    return Step("plan", tuple(words), "whether it fits, and how long it takes", _after_text(asked), serves, shows=-1)


def _suspects(asked: RouteOptions) -> Step:
    scorer = f"linear:{_out(asked, CLASSIFIER)}"
    words = ["--data", data_of(asked), "--scorer", scorer, "--span", asked.span or SPAN]
    words += [*_given_tokenizer(asked), "--output", _out(asked, SUSPECTS)]
    return Step(
        "score-text", tuple(words), "where: spans by the classifier", _after_text(asked, "train-classifier")
    )  # fmt: skip


def _factors(asked: RouteOptions) -> Step:
    words = [*_pass(asked), "--max-tokens", str(asked.factor_tokens), "--seed", str(asked.seed)]
    words += ["--output", _out(asked, FACTORS)]
    return Step("fit-factors", tuple(words), "the curvature of the proxy", _after_text(asked))


def _scores(asked: RouteOptions) -> Step:
    words = [*_pass(asked), "--factors", _out(asked, FACTORS), *_queries(asked), "--method", asked.method]
    words += ["--output", _out(asked, SCORES)]
    return Step("score", tuple(words), "which: the influence of every token", _after_text(asked, "fit-factors"))


def _mask(asked: RouteOptions) -> Step:
    words = ["--scores", _out(asked, SCORES)]
    reads: tuple[str, ...] = ("score",)
    if asked.recipe == WITHIN:
        suspects = _out(asked, SUSPECTS)
        words += ["--span", asked.span or SPAN, "--span-scores", suspects, "--within", "default", suspects]
        words += ["--span-fraction", str(asked.span_fraction or MOST_SUSPECTED)]
        words += ["--tokens-within", str(asked.tokens_within or TOKENS_WITHIN), *_given_tokenizer(asked)]
        reads = ("score", "score-text")
    else:
        words += ["--max-fraction", str(asked.max_fraction or MAX_FRACTION)]
    return Step("build-mask", (*words, "--output", _out(asked, MASK)), "the mask", _after_text(asked, *reads))


def _looks(asked: RouteOptions) -> list[Step]:
    """What says whether the mask is sound, and what it selects."""
    data, mask, scores = data_of(asked), _out(asked, MASK), _out(asked, SCORES)
    both = ["--mask", mask, "--scores", scores]
    named = _given_tokenizer(asked)
    reads = _after_text(asked, "score", "build-mask")
    return [
        Step("verify", ("--data", data, *both), "tokens, scores and mask belong together", reads, shows=-1),
        Step(
            "mask-stats", (*both, *named, "--output", _out(asked, STATISTICS)), "what it selects, in numbers", reads,
            shows=1,
        ),
        Step(
            "inspect", ("--data", data, *both, *named, "--html", _out(asked, PAGE)), "what it selects, to read", reads,
        ),
    ]  # fmt: skip
