"""What is asked of analyse: every option once, with its default and its text.

Nothing here needs torch, so that a parser can be filled without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ifguide.config.options import option, part
from ifguide.errors import ConfigError, InputError
from ifguide.generation.options import DTYPES, Sampling
from ifguide.scorers.registry import SPECS

ANALYSES = {
    "lens": "the probability of toxic tokens by layer",
    "direction": "what adding the toxic direction does to what a model says",
    "probe": "how well toxic text is told from safe text inside a model, by layer",
    "neurons": "the neurons that write abuse, and what became of them",
    "drift": "where training edited the weights, and how locally",
}
LAST, EVERY = "last", "every"
MEAN, END, PROMPT = "mean", "end", "prompt"
# what each analysis cannot do without, as fields of `Analyse`; lens takes prompts or toxic queries
_NEEDED = {name: ("toxic_queries", "safe_queries") for name in ANALYSES if name != "lens"}


@dataclass(frozen=True)
class LensOptions:
    """Of lens.

    Attributes:
        toxic_words: file with one word a line; the toxic tokens are those that spell one. None: the scorer says.
        token_threshold: a token is toxic that scores as much by itself.
        positions: `LAST`: after each prompt; `EVERY`: at every token of a prompt and its completion.
        top_k: a place counts if one of the base's ``top_k`` likeliest tokens is toxic.
    """

    toxic_words: str | None = option(
        None, metavar="FILE", kind="input", group="lens",
        help="one word a line: tokens that spell one are the toxic ones (default: tokens that --scorer calls toxic)",
    )  # fmt: skip
    token_threshold: float = option(
        0.5, metavar="X", group="lens", help="a token is toxic that --scorer gives as much by itself (default: 0.5)"
    )
    positions: str = option(
        LAST, choices=(LAST, EVERY), group="lens",
        help="look after each prompt, or at every token of a prompt and its completion (default: last)",
    )  # fmt: skip
    top_k: int = option(
        1, metavar="K", group="lens",
        help="take places where one of the base's K likeliest tokens is toxic (default: 1, where the likeliest is)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 0 < self.token_threshold <= 1:
            raise InputError(f"--token-threshold {self.token_threshold} must be above 0 and at most 1")
        if self.top_k < 1:
            raise InputError(f"--top-k {self.top_k} must be at least 1")


@dataclass(frozen=True)
class DirectionOptions:
    """Of direction: ``scales`` a of x_L + a v, and held-out ``text`` for the perplexity, None without one."""

    scales: Sequence[float] = option(
        (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0), metavar="A", group="direction",
        help="how often the direction is added to what the head reads (default: -2 -1 -0.5 0 0.5 1 2)",
    )  # fmt: skip
    text: str | None = option(
        None, metavar="FILE", kind="input", group="direction",
        help='JSONL with a "text": held-out clean text, whose perplexity is measured at each scale',
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.scales)):
            raise InputError("--scales must be numbers")


@dataclass(frozen=True)
class ProbeOptions:
    """Of probe; also of the probe that neurons and drift rank neurons by.

    Attributes:
        at: what is read of a text: `MEAN` of its completion's tokens, their `END`, or the `PROMPT`'s last token.
        strength: C of the logistic regression, the inverse of its penalty.
        folds: of the cross-validation; a prompt is in one of them.
        hidden: units of the small MLP, 0 to leave it out.
        heat_prompts: file of prompts that are shown token by layer, None for none.
    """

    at: str = option(
        MEAN, choices=(MEAN, END, PROMPT), group="probe",
        help="read the mean over a completion's tokens, its last token, or the prompt's last one (default: mean)",
    )  # fmt: skip
    strength: float = option(1.0, metavar="C", group="probe", help="C of the logistic regression (default: 1)")
    folds: int = option(5, metavar="N", group="probe", help="of the cross-validation, by prompt (default: 5)")
    hidden: int = option(32, metavar="N", group="probe", help="units of the small MLP, 0 for none (default: 32)")
    heat_prompts: str | None = option(
        None, metavar="FILE", kind="input", group="probe", help='JSONL with a "prompt": shown token by layer'
    )

    def __post_init__(self) -> None:
        if self.strength <= 0 or self.folds < 2 or self.hidden < 0:
            raise InputError(
                f"--strength {self.strength} must be above 0, --folds {self.folds} at least 2 and "
                f"--hidden {self.hidden} not negative"
            )


@dataclass(frozen=True)
class NeuronOptions:
    """Of neurons and drift.

    Attributes:
        neurons: how many of the best are the toxic set.
        unalign: how many of the best have their keys scaled, 0 for none.
        unalign_factor: by what.
    """

    neurons: int = option(128, metavar="N", group="neurons", help="size of the toxic set (default: 128)")
    unalign: int = option(
        7, metavar="N", group="neurons", help="scale the keys of the N best and ask again, 0 for none (default: 7)"
    )
    unalign_factor: float = option(10.0, metavar="X", group="neurons", help="by this (default: 10)")

    def __post_init__(self) -> None:
        if self.neurons < 1 or not 0 <= self.unalign <= self.neurons:
            raise InputError(
                f"--neurons {self.neurons} must be at least 1, and --unalign {self.unalign} between 0 and that"
            )


@dataclass(frozen=True)
class DriftOptions:
    """Of drift.

    Attributes:
        random_sets: drawn to hold the toxic neurons against, layer by layer as many.
        max_tokens: of the toxic and of the safe texts that CKA compares.
    """

    random_sets: int = option(
        1000, metavar="N", group="drift", help="random sets of neurons to hold the toxic ones against (default: 1000)"
    )
    max_tokens: int = option(
        2048, metavar="N", group="drift", help="tokens of each kind of text for CKA (default: 2048)"
    )

    def __post_init__(self) -> None:
        if self.random_sets < 20 or self.max_tokens < 2:
            raise InputError(
                f"--random-sets {self.random_sets} must be at least 20 and --max-tokens {self.max_tokens} at least 2"
            )


@dataclass(frozen=True)
class SpeechOptions:
    """What is drawn where a model speaks (direction, and neurons' un-aligning)."""

    samples: int = option(25, metavar="K", group="continuations", help="continuations a prompt (default: 25)")
    max_new_tokens: int = option(20, metavar="T", group="continuations", help="longest one (default: 20)")
    top_p: float = option(0.9, metavar="P", group="continuations", help="mass of the nucleus (default: 0.9)")
    max_prompts: int = option(
        200, metavar="N", group="continuations", help="of --prompts, drawn at random (default: 200)"
    )

    def __post_init__(self) -> None:
        Sampling(self.samples, self.max_new_tokens, self.top_p)  # which refuses what cannot be drawn
        if self.max_prompts < 1:
            raise InputError(f"--max-prompts {self.max_prompts} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Analyse:
    """The options of analyse, whichever analysis is asked for."""

    models: Sequence[str] = option(
        metavar="NAME=DIR", help="Hugging Face folders with a name each; the first is the base of all comparisons"
    )
    output: str = option(
        metavar="DIR", kind="output",
        help="folder for results.json, run.json and report.html; the same command continues there after a kill",
    )  # fmt: skip
    toxic_queries: str | None = option(
        None, metavar="FILE", kind="input", help='JSONL with a "prompt" and a toxic "completion"'
    )
    safe_queries: str | None = option(None, metavar="FILE", kind="input", help="the same with safe completions")
    prompts: str | None = option(
        None, metavar="FILE", kind="input",
        help='JSONL with a "prompt": looked at by lens, continued by direction and neurons (default: those of '
        "--toxic-queries)",
    )  # fmt: skip
    scorer: str = option(
        "detoxify:unbiased", metavar="SPEC", kind="scorer",
        help=f"judges continuations, and tokens for lens (default: detoxify:unbiased): {SPECS}",
    )  # fmt: skip
    max_texts: int = option(500, metavar="N", help="of each file of queries, drawn at random (default: 500)")
    resamples: int = option(10_000, metavar="R", help="of each bootstrap (default: 10000)")
    seed: int = option(0, metavar="N", help="of all draws (default: 0)")
    dtype: str = option("float32", choices=DTYPES, help="of the weights (default: float32)")
    eod_token: str | None = option(
        None, metavar="TOKEN", help="starts a document and ends a text (default: the model's eos_token)"
    )
    device: str = option("auto", metavar="NAME", kind="cost", help="cpu, cuda, ... (default: auto)")
    lens: LensOptions = part(LensOptions)
    direction: DirectionOptions = part(DirectionOptions)
    probe: ProbeOptions = part(ProbeOptions)
    neuron: NeuronOptions = part(NeuronOptions)
    drift: DriftOptions = part(DriftOptions)
    speech: SpeechOptions = part(SpeechOptions)

    def __post_init__(self) -> None:
        if self.max_texts < 2 or self.resamples < 100 or self.seed < 0:
            raise InputError(
                f"--max-texts {self.max_texts} must be at least 2, --resamples {self.resamples} at least 100 and "
                f"--seed {self.seed} not negative"
            )


# which parts of `Analyse` an analysis reads: an option of another one is a mistake
PARTS = {
    "lens": ("lens",),
    "direction": ("direction", "speech"),
    "probe": ("probe",),
    "neurons": ("neuron", "probe", "speech"),
    "drift": ("drift", "neuron", "probe"),
}


def require_options(what: str, asked: Analyse, given: dict[str, list[str]]) -> None:
    """
    Args:
        given: of each part of `Analyse`, the flags that were given.

    Raises:
        ConfigError: a file is missing that ``what`` needs, or an option was given that it does not read.
    """
    faults = [
        f"analyse {what} needs --{name.replace('_', '-')} FILE"
        for name in _NEEDED.get(what, ())
        if getattr(asked, name) is None
    ]
    if what == "lens" and asked.prompts is None and asked.toxic_queries is None:
        faults.append("analyse lens needs --prompts FILE or --toxic-queries FILE")
    for name, flags in given.items():
        if name not in PARTS[what]:
            readers = " and ".join(other for other, parts in PARTS.items() if name in parts)
            faults += [f"{flag} is an option of {readers}, not of {what}; leave it out" for flag in flags]
    if faults:
        raise ConfigError(faults)
