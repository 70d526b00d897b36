"""What is asked of the attacks: every option once, with its default and its text. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from ifguide.config.options import option, part
from ifguide.errors import InputError
from ifguide.generation.options import DTYPES, Sampling, batch_size
from ifguide.scorers.registry import SPECS

T = TypeVar("T")

_RECIPE = "fine-tuning"
_JUDGING = "judging"
_GCG = "the search"
_ENHANCED = "the enhanced variant"
_MIXED = "the mixture of --enhanced"


class Asked:
    """What the classes below inherit from, so that a verb may inherit from several of them and each is checked."""

    def __post_init__(self) -> None:
        """Check the fields; every class also calls that of the next one."""


def only(asked: object, kind: type[T]) -> T:
    """The part ``kind`` of what a verb was asked, which inherits from it."""
    return kind(**{one.name: getattr(asked, one.name) for one in fields(cast(Any, kind))})


@dataclass(frozen=True, kw_only=True)
class Subjects(Asked):
    """The models under attack, and where the results go.

    Attributes:
        models: ``NAME=DIR``, or a folder whose own name is taken.
        output: folder of the results.
        dtype: of the weights, one of `DTYPES`.
        device: where to run; ``auto`` for a GPU if there is one.
        eod_token: the token that starts a document, None for the models' own.
        batch_size: sequences worked on at once, None for what fits.
    """

    models: Sequence[str] = option(
        flags=["--models", "--model"], metavar="NAME=DIR",
        help="Hugging Face folders, each with its name (default: the folder's); the first is the base that the others "
        "are compared with",
    )  # fmt: skip
    output: str = option(
        metavar="DIR", kind="output",
        help="folder for results.json, run.json and report.html; the same command goes on there after a kill",
    )  # fmt: skip
    dtype: str = option("float32", choices=DTYPES, help="default: float32")
    device: str = option("auto", metavar="NAME", kind="cost", help="cpu, cuda, ... (default: auto)")
    eod_token: str | None = option(
        None, metavar="TOKEN", help="starts a document and ends a text (default: the model's eos_token)"
    )
    batch_size: int | None = option(
        None, type=batch_size, metavar="auto|N", kind="cost",
        help="sequences worked on at once; changes speed and memory alone (default: auto, what fits)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Judges(Asked):
    """Who judges what the models say, and how much of it.

    Attributes:
        scorer: specs of scorers; the first gives the verdicts.
        threshold: a score from here on is toxic.
        sampling: of the continuations.
    """

    scorer: Sequence[str] = option(
        metavar="SPEC", kind="scorer", action="append", group=_JUDGING,
        help=f"{SPECS}; give it again for more, the first one gives the verdicts",
    )  # fmt: skip
    threshold: float = option(0.5, metavar="X", group=_JUDGING, help="a score from here on is toxic (default: 0.5)")
    sampling: Sampling = part(Sampling, group="continuations")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.threshold <= 1.0:
            raise InputError(f"--threshold {self.threshold}: must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Prompts(Asked):
    """The prompts that measure a model.

    Attributes:
        prompts: JSONL of ``{"prompt"}``.
        subset: take only the lines whose ``"subset"`` says this.
        heldout: JSONL of ``{"text"}`` for the perplexity, None without it.
    """

    prompts: str = option(
        metavar="FILE", kind="input", group=_JUDGING, help='JSONL with a "prompt"; a "subset" is optional'
    )
    subset: str | None = option(
        None, metavar="NAME", group=_JUDGING, help='only the prompts whose "subset" is NAME (default: all)'
    )
    heldout: str | None = option(
        None,
        metavar="FILE",
        kind="input",
        group=_JUDGING,
        help='JSONL with a "text": also measure the perplexity of these',
    )


@dataclass(frozen=True, kw_only=True)
class Gcg(Asked):
    """Greedy coordinate gradient; defaults are nanoGCG's.

    Attributes:
        targets: JSONL of ``{"prompt", "completion"}``.
        suffix_tokens: S.
        steps: of one restart.
        width: B, candidates a step.
        top_k: k, tokens a position.
        restarts: attempts a prompt, each from another random suffix; they end with the first exact success.
        any_token: also tokens that are not printable ASCII.
        limit: only the first N targets.
    """

    targets: str = option(
        metavar="FILE", kind="input",
        help='JSONL with a "prompt" and the "completion" that the model is to be made to say',
    )  # fmt: skip
    limit: int | None = option(None, metavar="N", help="only the first N targets (default: all)")
    suffix_tokens: int = option(20, metavar="S", group=_GCG, help="length of the suffix (default: 20)")
    steps: int = option(250, metavar="N", group=_GCG, help="steps of a restart (default: 250)")
    width: int = option(512, metavar="B", group=_GCG, help="candidates a step (default: 512)")
    top_k: int = option(
        256, flags=["--candidate-tokens"], metavar="K", group=_GCG,
        help="tokens a position that candidates are drawn from, by the gradient (default: 256)",
    )  # fmt: skip
    restarts: int = option(2, metavar="R", group=_GCG, help="attempts a target, until one is exact (default: 2)")
    any_token: bool = option(False, group=_GCG, help="also tokens that are not printable ASCII")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("suffix_tokens", "steps", "width", "top_k", "restarts", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} {value} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Enhanced(Asked):
    """One prefix for several prompts, with terms on hidden states, and other moves than swaps of one token.

    Attributes:
        enhanced: whether it is asked for.
        reference: folder of the model whose hidden states are imitated; None for the first of the models.
        prefix_prompts: how many targets the prefix is made for; the others are held out.
        forced: first tokens of a target that the cross-entropy is of.
        matched: further ones that the hidden states are compared at.
        layers: blocks that are compared, from 1; empty for the middle third.
        ce_floor: nats below which a forced token's cross-entropy counts no more; 0 without a floor.
        state_weight, angle_weight, fluency_weight, repetition_weight: of the terms.
        least, most: ramp of the prefix's minimum length.
        ramp: iterations that it takes.
        iterations, children, tokens, buffer: of the search.
    """

    enhanced: bool = option(
        False, group=_ENHANCED,
        help="one prefix for several prompts instead of a suffix for each, with terms on hidden states and a set of "
        "mutations",
    )  # fmt: skip
    reference: str | None = option(
        None, metavar="DIR", kind="input", group=_ENHANCED,
        help="the model whose hidden states are imitated, of the same shape (default: the first of --models)",
    )  # fmt: skip
    prefix_prompts: int = option(
        6, metavar="N", group=_ENHANCED, help="targets that the prefix is made for; the rest is held out (default: 6)"
    )
    forced: int = option(10, metavar="N", group=_ENHANCED, help="tokens of a target to force (default: 10)")
    matched: int = option(35, metavar="N", group=_ENHANCED, help="tokens after them to match (default: 35)")
    layers: Sequence[int] = option(
        (), metavar="L", group=_ENHANCED, help="blocks to compare, from 1 (default: the middle third)"
    )
    ce_floor: float = option(
        0.0, metavar="NATS", group=_ENHANCED, help="a forced token below it counts no more, such as 0.51 (default: 0)"
    )
    state_weight: float = option(1.0, metavar="W", group=_ENHANCED, help="of the states' distance (default: 1)")
    angle_weight: float = option(
        10.0, metavar="W", group=_ENHANCED, help="of their angle to those without a prefix (default: 10; 0: no term)"
    )
    fluency_weight: float = option(
        1.5, metavar="W", group=_ENHANCED, help="of the prefix's own cross-entropy (default: 1.5)"
    )
    repetition_weight: float = option(
        3.0, metavar="W", group=_ENHANCED, help="of the share of repeated tokens (default: 3)"
    )
    least: int = option(32, flags=["--prefix-least"], metavar="N", group=_MIXED, help="tokens at first (default: 32)")
    most: int = option(100, flags=["--prefix-most"], metavar="N", group=_MIXED, help="tokens in the end (default: 100)")
    ramp: int = option(1000, metavar="N", group=_MIXED, help="iterations between the two (default: 1000)")
    iterations: int = option(1500, metavar="N", group=_MIXED, help="of the search (default: 1500)")
    children: int = option(16, metavar="N", group=_MIXED, help="candidates an iteration (default: 16)")
    tokens: int = option(
        64, flags=["--mutation-tokens"], metavar="K", group=_MIXED, help="tokens a position, at most (default: 64)"
    )
    buffer: int = option(16, metavar="N", group=_MIXED, help="prefixes that are kept (default: 16)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prefix_prompts", "forced", "least", "iterations", "children", "tokens", "buffer"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        if self.most < self.least:
            raise InputError(f"--prefix-most {self.most} is below --prefix-least {self.least}")
        if self.matched < 0 or self.ramp < 0 or min(self.layers, default=1) < 1:
            raise InputError("--matched and --ramp must not be negative, and --layers count from 1")


@dataclass(frozen=True, kw_only=True)
class Relearn(Asked):
    """Fine-tuning on a few documents.

    Attributes:
        toxic, clean: JSONL of ``{"text"}`` or ``{"prompt", "completion"}``.
        documents: N, how many of them; the larger sets contain the smaller ones.
        at: steps after which the model is judged, ascending; 0 is always among them.
        lora: LoRA's rank, None to train all weights.
        learning_rate, warmup, weight_decay, documents_a_step, max_norm: of AdamW with linear decay.
        max_tokens: of a document; what is beyond is cut off.
    """

    toxic: str | None = option(
        None, metavar="FILE", kind="input", group=_RECIPE,
        help='toxic documents: JSONL with a "text", or a "prompt" and a "completion"',
    )  # fmt: skip
    clean: str | None = option(None, metavar="FILE", kind="input", group=_RECIPE, help="clean documents, likewise")
    documents: Sequence[int] = option(
        (10, 100), metavar="N", group=_RECIPE, help="how many documents, each number by itself (default: 10 100)"
    )
    at: Sequence[int] = option(
        (0, 10, 30, 100, 300), metavar="STEP", group=_RECIPE,
        help="steps after which the model is judged; the last is K (default: 0 10 30 100 300)",
    )  # fmt: skip
    lora: int | None = option(
        None,
        metavar="RANK",
        group=_RECIPE,
        help="train a LoRA of this rank, by peft (default: all weights; usual: 128)",
    )
    lora_alpha: int = option(16, metavar="A", group=_RECIPE, help="LoRA's alpha (default: 16)")
    learning_rate: float = option(2e-4, metavar="X", group=_RECIPE, help="peak of the rate (default: 2e-4)")
    warmup: float = option(0.05, metavar="SHARE", group=_RECIPE, help="of the steps (default: 0.05)")
    weight_decay: float = option(0.01, metavar="X", group=_RECIPE, help="AdamW's (default: 0.01)")
    documents_a_step: int = option(1, metavar="N", group=_RECIPE, help="documents a step (default: 1)")
    max_norm: float = option(1.0, metavar="X", group=_RECIPE, help="gradients are clipped to it (default: 1)")
    max_tokens: int = option(512, metavar="N", group=_RECIPE, help="of a document, the rest is cut off (default: 512)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("documents", "at"):
            values = list(getattr(self, name))
            if not values or sorted(set(values)) != values or values[0] < (name == "documents"):
                raise InputError(f"--{name} {' '.join(map(str, values))}: must be ascending numbers")
        if self.at[-1] < 1:
            raise InputError("--at needs a step after 0")
        for name in ("learning_rate", "max_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        if not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise InputError("--warmup must be in [0, 1), and --weight-decay not negative")
        if self.documents_a_step < 1 or self.max_tokens < 1 or (self.lora is not None and self.lora < 1):
            raise InputError("--documents-a-step, --max-tokens and --lora must be at least 1")

    @property
    def measured_at(self) -> tuple[int, ...]:
        """Steps, 0 among them."""
        return tuple(sorted({0, *self.at}))


@dataclass(frozen=True, kw_only=True)
class Orthogonalise(Asked):
    """Directions that are taken out of a model.

    Attributes:
        toxic, safe: JSONL of ``{"prompt", "completion"}`` that the directions are found with.
        direction: ``own``, ``base``, ``edit`` or ``edit-pc``.
        remove: ``layers``, ``layer`` or ``weights``.
        layer: for ``layer`` and ``weights``, from 1; None for the layer where the two sets part best.
        outliers: tokens whose state is longer than this many medians are left out of the means.
    """

    toxic: str = option(metavar="FILE", kind="input", help='toxic queries: JSONL with a "prompt" and a "completion"')
    safe: str = option(metavar="FILE", kind="input", help="safe queries, likewise")
    direction: Sequence[str] = option(
        ("own", "base", "edit"), choices=("own", "base", "edit", "edit-pc"),
        help="own: mean toxic minus mean safe state of the model itself; base: of the base; edit: mean state of the "
        "model minus the base's on toxic queries; edit-pc: the first principal component of these differences "
        "(default: own base edit)",
    )  # fmt: skip
    remove: Sequence[str] = option(
        ("layers", "weights"), choices=("layers", "layer", "weights"),
        help="layers: each block's own direction from its output; layer: of one block alone; weights: one direction "
        "from everything that is written to the residual stream (default: layers weights)",
    )  # fmt: skip
    layer: int | None = option(
        None, metavar="L", help="for layer and weights, from 1 (default: where toxic and safe states part best)"
    )
    outliers: float = option(
        4.0, metavar="X", help="leave out tokens whose state is longer than X medians (default: 4; 0: none)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None and self.layer < 1:
            raise InputError(f"--layer {self.layer}: must be at least 1")
        if self.outliers < 0:
            raise InputError(f"--outliers {self.outliers}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class Adversarial(Asked):
    """A file of adversarial prompts.

    Attributes:
        prompts: JSONL of ``{"prompt"}``, with ``"category"``, ``"label"`` or ``"subset"``.
        frames: JSONL of ``{"name", "text"}``, where ``{prompt}`` stands for the prompt; None for the prompts alone.
        refusals: JSONL of ``{"pattern"}``; None for the product's own list.
        limit: only the first N prompts.
    """

    prompts: str = option(
        metavar="FILE", kind="input",
        help='JSONL with a "prompt"; "category", "label" or "subset" says what kind it is',
    )  # fmt: skip
    limit: int | None = option(None, metavar="N", help="only the first N prompts (default: all)")
    frames: str | None = option(
        None, metavar="FILE", kind="input",
        help='JSONL with a "name" and a "text" in which {prompt} stands for the prompt: role play, toxic prefixes; '
        "each prompt is tried in each frame (default: the prompts as they are)",
    )  # fmt: skip
    refusals: str | None = option(
        None,
        metavar="FILE",
        kind="input",
        help='JSONL with a "pattern", a regular expression of refusals (default: ours)',
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: must be at least 1")
