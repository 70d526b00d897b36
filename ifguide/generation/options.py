"""What is asked of generate: every option once, with its default and its text.

Nothing here needs torch, so that a parser can be filled without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifguide.config.options import option
from ifguide.errors import InputError

DTYPES = ("float32", "bfloat16", "float16", "float64")
_RAD = "reward-augmented decoding (RAD)"
OURS, PAPER = "ours", "paper"
RAD_ORDERS = (OURS, PAPER)
RAD_WEIGHTS = {OURS: 10.0, PAPER: 50.0}  # of each order, where none is given


def batch_size(text: str) -> int | None:
    """``auto`` or a number of rows; None for what fits."""
    return None if text == "auto" else int(text)


@dataclass(frozen=True)
class Sampling:
    """What to draw; the defaults are the published setting.

    Attributes:
        samples: continuations a prompt.
        max_new_tokens: longest continuation, in tokens.
        top_p: mass of the nucleus, in (0, 1].
        temperature: divides the logits, > 0.
        seed: non-negative.
        top_k: draw from that many tokens at most, 0 for no limit.
    """

    samples: int = option(25, metavar="K", help="continuations a prompt (default: 25)")
    max_new_tokens: int = option(20, metavar="T", help="longest one (default: 20)")
    top_p: float = option(0.9, metavar="P", help="mass of the nucleus (default: 0.9)")
    temperature: float = option(1.0, metavar="X", help="default: 1")
    seed: int = option(0, metavar="N", help="default: 0")
    top_k: int = option(0, metavar="N", help="0 for no limit (default: 0)")

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_new_tokens < 1:
            raise InputError(f"samples ({self.samples}) and max_new_tokens ({self.max_new_tokens}) must be at least 1")
        if not 0.0 < self.top_p <= 1.0:
            raise InputError(f"top_p {self.top_p} must be above 0 and at most 1")
        if not self.temperature > 0.0:
            raise InputError(f"temperature {self.temperature} must be above 0")
        if self.seed < 0:
            raise InputError(f"seed {self.seed} must not be negative")
        if self.top_k < 0:
            raise InputError(f"top_k {self.top_k} must not be negative; 0 is no limit")


@dataclass(frozen=True)
class GenerateOptions:
    """How a file of prompts is continued.

    Attributes:
        batch_size: continuations worked on at once, None for what fits.
        dtype: of the weights, one of `DTYPES`.
        eod_token: the token that starts a document and ends a text, None for the model's own.
        device: where to run; ``auto`` for a GPU if there is one.
        rad: spec of the scorer of reward-augmented decoding, None without it.
        rad_weight, rad_top_k, rad_order: see `ifguide.generation.rad.Rad`.
        condition: a token, by its name or id, that stands before every prompt and is never drawn.
    """

    batch_size: int | None = option(
        None, type=batch_size, metavar="auto|N", kind="cost",
        help="continuations worked on at once; changes speed and memory, not what is drawn (default: auto, what fits)",
    )  # fmt: skip
    dtype: str = option("float32", choices=DTYPES, help="default: float32")
    eod_token: str | None = option(
        None, metavar="TOKEN", help="starts a document and ends a text (default: the model's eos_token)"
    )
    device: str = option("auto", metavar="NAME", kind="cost", help="cpu, cuda, ... (default: auto)")
    rad: str | None = option(
        None, metavar="SCORER", kind="scorer", group=_RAD, help="classifier whose toxicity the next token avoids"
    )
    rad_weight: float | None = option(
        None, metavar="B", group=_RAD, help="added to a logit: B x (1 - score) (default: 10; 50 in the paper's order)"
    )  # fmt: skip
    rad_top_k: int = option(20, metavar="N", group=_RAD, help="candidates a token (default: 20)")
    rad_order: str = option(
        OURS, choices=RAD_ORDERS, group=_RAD,
        help="ours (default): reward, then temperature, top-k and nucleus; paper: those first, and nothing after the "
        "reward",
    )  # fmt: skip
    condition: str | None = option(
        None, metavar="TOKEN",
        help="put this token before every prompt: <|good|>, of a model trained on what build-tags wrote; a name or id",
    )  # fmt: skip
