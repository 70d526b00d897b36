"""What is asked of fit-factors, score and plan: every option once, with its default and its text.

Nothing here needs torch, so that a parser can be filled without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ifguide.config.options import option, part, same_as
from ifguide.errors import InputError
from ifguide.selection.settings import SelectionSettings

STRATEGIES = ("ekfac", "kfac", "diagonal", "identity")
ATTRIBUTIONS = ("loss-term", "position")
METHODS = ("jvp", "difference", "auto")
DTYPES = ("float32", "bfloat16")

_CASCADE = "cascade: cheap scores for everything, exact ones for what can make the mask"
_MASK = "the mask that a cascade is for: build-mask refuses to go beyond it"


@dataclass(frozen=True, kw_only=True)
class ModelAndData:
    """What every pass reads."""

    model: str = option(help="Hugging Face folder (model and tokenizer)", metavar="DIR", kind="input")
    data: str = option(help="indexed dataset, without .bin/.idx", metavar="PREFIX", kind="input")


@dataclass(frozen=True)
class FitOptions:
    """How factors are fitted.

    Attributes:
        eod_token: the separator of documents (None: the data's, else the model's).
        strategy: one of `STRATEGIES`.
        max_tokens: fit on a seeded sample of windows with about this many tokens (None: all).
        seq_length: window in tokens (None: the model's, at most 2048).
        context: overlap of the windows of a longer document (None: a quarter of the window).
        batch_size: a batch holds as many tokens as this many full windows.
        seed: of the sample and of the labels.
        modules: regular expression on the names of the layers to track (None: all of attention and MLP).
    """

    eod_token: str | None = option(
        None, metavar="T", help="what separates documents (default: as the data records, else the model's)"
    )
    strategy: str = option("ekfac", choices=STRATEGIES, help="default: ekfac")
    max_tokens: int | None = option(None, metavar="N", help="fit on a seeded sample of N tokens (default: all)")
    seq_length: int | None = option(None, metavar="L", help="window in tokens (default: the model's, max 2048)")
    context: int | None = option(None, metavar="C", help="overlap of a long document's windows (default: L/4)")
    batch_size: int = option(16, metavar="B", kind="cost", help="tokens in a batch: B full windows (default: 16)")
    seed: int = option(0, help="of the sample and of the labels (default: 0)")
    modules: str | None = option(None, metavar="REGEX", help="track only layers whose name matches")


@dataclass(frozen=True)
class Method:
    """How the pass over the data is made.

    Attributes:
        attribution: one of `ATTRIBUTIONS`.
        method: of loss-term, one of `METHODS`.
        step: of difference: |εv| / |θ|; None is searched.
        one_sided: of difference: all directions share the unmoved pass; coarser.
        rank: of jvp and position: directions are cut to this rank (None: whole).
        dtype: of weights and activations; difference needs float32.
        tf32: multiply float32 matrices in TF32, where the scores still pass the gate.
    """

    attribution: str = option(
        "loss-term", metavar="NAME",
        help="loss-term: each token's own loss (default); position: what flows through its position, as kronfluence",
    )  # fmt: skip
    method: str = option(
        "auto", metavar="NAME",
        help="of loss-term: jvp (one forward-mode pass), difference (two plain passes, its step searched first), "
        "auto (default: the faster of both here, if a sample of difference agrees with jvp)",
    )  # fmt: skip
    step: float | None = None
    one_sided: bool = option(False, help="several behaviours share one of difference's passes; coarser")
    rank: int | None = option(None, metavar="R", help="cut each layer's direction to this rank (SVD)")
    dtype: str = option("float32", metavar="NAME", help="of the pass: float32 (default) or bfloat16")
    tf32: bool = option(False, help="multiply in TF32 on GPUs that have it (with bfloat16: in the head)")

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able, for identities; what earlier versions did not know is left out where it is unused."""
        return {key: value for key, value in asdict(self).items() if key != "tf32" or value}

    def faults(self) -> list[str]:
        """What is wrong with these settings, one line each."""
        faults = []
        for flag, value, known in (
            ("--attribution", self.attribution, ATTRIBUTIONS),
            ("--method", self.method, METHODS),
            ("--dtype", self.dtype, DTYPES),
        ):
            if value not in known:
                faults.append(f"{flag} {value}: must be one of {', '.join(known)}")
        if self.attribution == "position" and self.method == "difference":
            faults.append("--method difference belongs to --attribution loss-term; position has one way: leave it out")
        if self.one_sided and (self.attribution == "position" or self.method == "jvp"):
            faults.append("--one-sided belongs to --method difference; add that, or leave it out")
        if self.dtype != "float32" and self.method == "difference":
            faults.append(f"--method difference rounds too much in {self.dtype}; use --dtype float32, or --method jvp")
        if self.rank is not None and self.rank < 1:
            faults.append(f"--rank {self.rank}: must be at least 1")
        return faults

    @property
    def searches(self) -> bool:
        """Whether a step has to be found first."""
        return self.attribution == "loss-term" and self.method != "jvp" and self.dtype == "float32"


@dataclass(frozen=True)
class Damping:
    """What is added to Λ before it is inverted.

    Attributes:
        value: non-negative; a multiple of the layer's mean Λ if ``relative``, else the number itself.
    """

    value: float = option(
        0.1, flags=["--damping"], metavar="D", help="times the layer's mean curvature (default: 0.1)"
    )  # fmt: skip
    relative: bool = option(True, flags=["--absolute-damping"], help="take --damping as the number itself")

    def __post_init__(self) -> None:
        if not 0 <= self.value < float("inf"):
            raise InputError(f"--damping {self.value}: must be a number of at least 0")


@dataclass(frozen=True)
class Options:
    """How a run scores.

    Attributes:
        per_category: one behaviour for each category of the toxic queries.
        seq_length: window in tokens (None: as the factors were fitted).
        context: overlap of the windows of a longer document (None: as the factors were fitted).
        batch_size: a batch holds as many tokens as this many full windows.
        documents: ``FIRST:LAST``, the documents whose shards this call scores (None: all).
        device_map: ``balanced``: the model's blocks over all GPUs (None: all of it on one).
        shard_tokens: about how many tokens are kept at a time; part of the run's identity (None: as the unfinished run
            has them, else `shards.shard_tokens_for`).
    """

    method: Method = part(Method)
    damping: Damping = part(Damping)
    per_category: bool = False
    seq_length: int | None = same_as(FitOptions, "seq_length", help="window in tokens (default: the factors')")
    context: int | None = same_as(FitOptions, "context", help="overlap of a long document's windows")
    batch_size: int = same_as(FitOptions, "batch_size")
    documents: str | None = option(
        None, metavar="A:B", kind="cost",
        help="only these documents; calls for all of them together finish the file",
    )  # fmt: skip
    device_map: str | None = option(
        None, choices=("balanced",), kind="cost",
        help="spread the model over all GPUs of this machine, for one that does not fit any of them alone",
    )  # fmt: skip
    shard_tokens: int | None = option(
        None, metavar="N", help="what a kill can cost, in tokens (default: 2^18, more above 2^34 tokens)"
    )  # fmt: skip


@dataclass(frozen=True)
class CascadeSettings:
    """How much is scored exactly.

    Attributes:
        keep: share of the tokens, in the units that rank first by their cheap scores.
        audit: share of the tokens, about, in a random sample of the other units.
        seed: of that sample.
        selection: of the mask that the scores are for.
    """

    keep: float = option(0.15, metavar="SHARE", help="of the tokens, exactly scored (default 0.15)")
    audit: float = option(0.03, metavar="SHARE", help="of the tokens, for the report (default 0.03)")
    seed: int = option(0, metavar="N", help="of the audit (default: 0)")
    selection: SelectionSettings = part(
        SelectionSettings,
        group=_MASK,
        texts={
            "threshold_quantile": "as for build-mask (default: 0.99)",
            "window": "as for build-mask (default: 1)",
            "max_fraction": "as for build-mask (default: 0.02)",
            "max_tokens": "as for build-mask",
            "unit_tokens": "as for build-mask (default: 2048)",
            "include_eod": "as for build-mask",
        },
    )

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.keep < 1:
            faults.append(f"--cascade-keep {self.keep}: must be above 0 and below 1")
        if not 0 < self.audit < 1:
            faults.append(f"--cascade-audit {self.audit}: must be above 0 and below 1")
        if self.seed < 0:
            faults.append(f"--cascade-seed {self.seed}: must not be negative")
        if faults:
            raise InputError("; ".join(faults))


@dataclass(frozen=True)
class Cascade:
    """Where the cheap scores come from: a proxy with its factors, or scores that exist.

    Attributes:
        model: Hugging Face folder with the tokenizer of the exact model.
        factors: made by fit-factors on it.
        scores: prefix of any scores of the same data.
    """

    model: str | Path | None = option(
        None, metavar="DIR", kind="input", group=_CASCADE, help="a small proxy with the same tokenizer"
    )
    factors: str | Path | None = option(
        None, metavar="DIR", kind="input", group=_CASCADE, help="made by fit-factors on the proxy"
    )
    scores: str | Path | None = option(
        None, metavar="PREFIX", kind="input", group=_CASCADE, help="any scores of the same tokens, not a proxy"
    )
    settings: CascadeSettings = part(CascadeSettings, group=_CASCADE)
