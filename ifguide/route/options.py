"""What ``ifguide mask`` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifguide.config.options import option, same_as
from ifguide.data.text.content import DEFAULT_TYPE, type_meant
from ifguide.errors import ConfigError
from ifguide.influence.options import FitOptions, Method
from ifguide.quickstart.masking import MOST_SUSPECTED, SPAN, TOKENS_WITHIN

WITHIN, INFLUENCE = "within", "influence"
RECIPES = (WITHIN, INFLUENCE)
FACTOR_TOKENS = 1_000_000
MAX_FRACTION = 0.02

_TEXT = "what is masked"
_WHICH = "which tokens"


@dataclass(frozen=True, kw_only=True)
class RouteOptions:
    """From text to mask.

    Attributes:
        input: texts, or
        data: prefix of an indexed dataset of them.
        model: Hugging Face folder of the proxy that scores.
        recipe: one of `RECIPES`.
        max_fraction: of `INFLUENCE`; None: `MAX_FRACTION`.
        span, span_fraction, tokens_within: of `WITHIN`; None: the quickstart's.
    """

    input: Sequence[str] | None = option(
        one_of="text", metavar="FILE", kind="input", group=_TEXT, help="texts, as preprocess takes them"
    )  # fmt: skip
    data: str | None = option(
        one_of="text", metavar="P", kind="input", group=_TEXT,
        help="or an indexed dataset of preprocess or GPT-NeoX, without .bin/.idx",
    )  # fmt: skip
    tokenizer_type: str | None = option(
        None, metavar="TYPE", group=_TEXT, help="as for preprocess (default: the proxy's own, or what --data records)"
    )  # fmt: skip
    vocab_file: str | None = option(
        None, metavar="FILE", kind="input", group=_TEXT,
        help=f"file or folder of a tokenizer, a {DEFAULT_TYPE} unless --tokenizer-type says another",
    )  # fmt: skip
    merge_file: str | None = option(None, metavar="FILE", kind="input", group=_TEXT, help="of a GPT2BPETokenizer")
    model: str = option(
        metavar="DIR", kind="input", help="the proxy that scores: a Hugging Face folder with its tokenizer"
    )  # fmt: skip
    toxic_queries: str = option(metavar="FILE", kind="input", help="JSONL of prompt, completion")
    safe_queries: str = option(metavar="FILE", kind="input", help="JSONL of prompt, completion")
    output: Path = option(
        metavar="DIR", kind="output", help="folder for everything; the same command goes on there after a kill"
    )  # fmt: skip
    recipe: str = option(
        WITHIN, choices=RECIPES, group=_WHICH,
        help="within (default): a classifier trained on the queries says in which spans, influence which of their "
        "tokens (M3c); influence: Algorithm 1 alone (M3)",
    )  # fmt: skip
    span: str | None = option(
        None, choices=("line", "sentence"), group=_WHICH, help=f"of within: what is suspected as a whole ({SPAN})"
    )  # fmt: skip
    span_fraction: float | None = option(
        None, metavar="A", group=_WHICH,
        help=f"of within: suspect spans above the classifier's threshold, at most this share of the tokens "
        f"({MOST_SUSPECTED})",
    )  # fmt: skip
    tokens_within: float | None = option(
        None, metavar="PHI", group=_WHICH, help=f"of within: take this share of each suspected span ({TOKENS_WITHIN})"
    )  # fmt: skip
    max_fraction: float | None = option(
        None, metavar="F", group=_WHICH, help=f"of influence: at most this share of the tokens ({MAX_FRACTION})"
    )  # fmt: skip
    factor_tokens: int = option(
        FACTOR_TOKENS, metavar="N", group="how", help="fit the curvature on a sample of N tokens (default: 1000000)"
    )  # fmt: skip
    method: str = option(
        Method.method, metavar="NAME", group="how", help="of score: jvp, difference or auto (default: auto)"
    )  # fmt: skip
    seq_length: int | None = same_as(FitOptions, "seq_length")
    seed: int = option(0, metavar="N", group="how", help="of the sample and of the classifier's parts (default: 0)")
    batch_size: int = same_as(FitOptions, "batch_size")
    workers: int = option(1, metavar="N", kind="cost", group="how", help="processes of preprocess (default: 1)")
    dry_run: bool = option(
        False, kind="cost", help="check the inputs, print every command and what of it exists already; write nothing"
    )  # fmt: skip

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: options of the other recipe, or numbers that cannot be meant; all of them.
        """
        faults = []
        of: dict[str, dict[str, object]] = {
            WITHIN: {"--span": self.span, "--span-fraction": self.span_fraction, "--tokens-within": self.tokens_within},
            INFLUENCE: {"--max-fraction": self.max_fraction},
        }
        for recipe, given in of.items():
            if recipe != self.recipe:
                strangers = [flag for flag, value in given.items() if value is not None]
                faults += [f"{flag} is of --recipe {recipe}; leave it out, or take that" for flag in strangers]
        shares = {"--span-fraction": self.span_fraction, "--tokens-within": self.tokens_within,
                  "--max-fraction": self.max_fraction}  # fmt: skip
        for flag, share in shares.items():
            if share is not None and not 0 < share <= 1:
                faults.append(f"{flag} {share}: must be above 0 and at most 1")
        counts = {"--factor-tokens": self.factor_tokens, "--batch-size": self.batch_size, "--workers": self.workers}
        for flag, count in counts.items():
            if count < 1:
                faults.append(f"{flag} {count}: must be at least 1")
        if self.seed < 0:
            faults.append(f"--seed {self.seed}: must not be negative")
        faults += Method(method=self.method).faults()
        # as every command takes it, and said to each step
        object.__setattr__(self, "tokenizer_type", type_meant(self.tokenizer_type, self.vocab_file))
        if self.tokenizer_type is None and self.merge_file:
            faults.append("--merge-file needs --tokenizer-type and --vocab-file")
        if faults:
            raise ConfigError(faults)
