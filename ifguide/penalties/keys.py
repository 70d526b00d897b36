"""The YAML keys that IF-Guide adds to GPT-NeoX's, and what can be wrong with them.

One definition for both engines: the embedded trainer's configuration inherits `PenaltyKeys`, the patch
of a GPT-NeoX checkout adds the same fields to ``NeoXArgs``. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ifguide.config.hints import near_prefix, with_hint


@dataclass
class PenaltyKeys:
    """The keys of IF-Guide. Without a mask path no key has an effect, and setting one is a fault."""

    # ---- IF-Guide ----
    penalty_data_path: str | None = None
    """Penalty mask aligned with data_path (made by `ifguide build-mask`); acts on its training part."""
    train_penalty_data_paths: list[str] | None = None
    """Penalty masks, parallel to train_data_paths; "" for a dataset without one."""
    penalty_action: Literal["penalise", "drop", "hide"] = "penalise"
    """What happens to selected tokens: `penalise` (M4), `drop` (no loss), `hide` (no loss, and unseen as an input)."""
    penalty_hidden_token: str | int | None = None
    """Name or id of the token read in place of hidden ones; required by, and only for, penalty_action `hide`."""
    penalty_lambda: float = 1.0
    """Weight λ of the penalty in the loss (M4)."""
    penalty_form: Literal["ascent", "clipped", "unlikelihood"] = "ascent"
    """f in (M4): `ascent` -CE, `clipped` -min(CE, penalty_clip), `unlikelihood` -log(1 - exp(-CE))."""
    penalty_clip: float | None = None
    """Nats at which the push of penalty_form `clipped` ends. Required for it, and only for it."""
    penalty_warmup_iters: int = 0
    """Iterations over which λ rises linearly from 0."""
    penalty_log: bool = True
    """Log lm_loss of clean tokens, penalty_ce and penalty_fraction apart from the objective."""


KEYS = tuple(field.name for field in fields(PenaltyKeys))
_DEFAULTS = {field.name: field.default for field in fields(PenaltyKeys)}
# what says how hard to push: without a meaning where nothing is pushed
_PUSH = ("penalty_form", "penalty_lambda", "penalty_clip", "penalty_warmup_iters")


class Push(NamedTuple):
    """What (M4) needs beside strengths: the form f, λ, the clip c in nats, and the iterations over which λ rises."""

    form: str
    penalty_lambda: float
    clip: float | None
    warmup_iters: int


def push_of(config: Any) -> Push:
    """How hard a run with these keys (`TrainConfig` or ``NeoXArgs``) pushes selected tokens.

    Dropped and hidden tokens have λ = 0: they leave the numerator of (M4) and stay in its denominator.
    """
    keys = _completed({key: getattr(config, key) for key in KEYS})
    if action_of(keys) != "penalise":
        return Push("ascent", 0.0, None, 0)
    form = str(keys["penalty_form"]).lower()
    return Push(form, float(keys["penalty_lambda"]), keys["penalty_clip"], keys["penalty_warmup_iters"])


def action_of(config: Mapping[str, Any]) -> str:
    """``penalty_action``, in the spelling of `PenaltyKeys` (GPT-NeoX compares choices without case)."""
    return str(config.get("penalty_action") or PenaltyKeys.penalty_action).lower()


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**_DEFAULTS, **{key: value for key, value in config.items() if value is not None}}


def values_of(config: Any) -> dict[str, Any]:
    """What the checks below need of a configuration object (`TrainConfig` or ``NeoXArgs``), as a mapping."""
    return {key: getattr(config, key) for key in (*KEYS, "data_path", "train_data_paths")}


def mask_pairs(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(prefix of a training dataset, prefix of its mask); datasets without a mask are left out."""
    if config.get("penalty_data_path"):
        return [(config["data_path"], config["penalty_data_path"])]
    masks = config.get("train_penalty_data_paths") or []
    return [(data, mask) for data, mask in zip(config.get("train_data_paths") or [], masks) if mask]


def penalty_faults(config: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Values and combinations that cannot be meant, one line each. Types are right already.

    Args:
        given: the keys that the user wrote, where that is known: a key may be out of place at its default too.
    """
    config = _completed(config)
    form, action = str(config["penalty_form"]).lower(), action_of(config)
    config |= {"penalty_form": form, "penalty_action": action}
    if given is None:
        given = {key: config[key] for key in _PUSH if config[key] != _DEFAULTS[key]}
    masks, datasets = config["train_penalty_data_paths"], config.get("train_data_paths")
    data_path, mask_path = config.get("data_path"), config["penalty_data_path"]
    if mask_path and not data_path:
        yield "penalty_data_path: goes with data_path; use train_penalty_data_paths with train_data_paths"
    if masks is not None and not datasets:
        yield "train_penalty_data_paths: goes with train_data_paths; use penalty_data_path with data_path"
    elif masks is not None and datasets and len(masks) != len(datasets):
        yield (
            f'train_penalty_data_paths: {len(masks)} masks for {len(datasets)} train_data_paths; "" means none for one'
        )
    if not math.isfinite(config["penalty_lambda"]):
        yield f"penalty_lambda: must be finite, got {config['penalty_lambda']}"
    if not 0 <= config["penalty_warmup_iters"] < math.inf:
        yield f"penalty_warmup_iters: must be a finite number of at least 0, got {config['penalty_warmup_iters']}"
    yield from _action_faults(
        action, config["penalty_hidden_token"], [key for key in _PUSH if given.get(key) is not None]
    )
    clip, pushes = config["penalty_clip"], action == "penalise"
    if pushes and form == "clipped" and not (clip and 0 < clip < math.inf):
        yield "penalty_clip: penalty_form clipped needs it, in nats, above 0 (e.g. 10.0)"
    if pushes and form != "clipped" and clip is not None:
        yield f"penalty_clip: has no effect with penalty_form {form}; set penalty_form: clipped"
    if not mask_path and masks is None:
        keys = ("penalty_lambda", "penalty_form", "penalty_warmup_iters", "penalty_action", "penalty_hidden_token")
        for key in keys:
            if config[key] != _DEFAULTS[key]:
                yield f"{key}: has no effect without penalty_data_path or train_penalty_data_paths"


def _action_faults(action: str, token: str | int | None, written: list[str]) -> Iterator[str]:
    """What ``penalty_action`` lacks, and which of the keys ``written`` it leaves without a meaning."""
    if action != "penalise" and written:
        yield (
            f"penalty_action: {action} pushes nothing, so {', '.join(written)} would have no effect; leave out "
            f"{'it' if len(written) == 1 else 'them'} or penalty_action"
        )
    if action == "hide" and token is None:
        yield (
            "penalty_hidden_token: penalty_action hide needs it: the name of a token that no text holds, or the id of "
            "a spare row of the padded vocabulary"
        )
    if action != "hide" and token is not None:
        yield f"penalty_hidden_token: has no effect with penalty_action {action}; set penalty_action: hide"


def missing_files(key: str, prefix: str, mask: bool = False) -> Iterator[str]:
    """A line if the dataset (or, with ``mask``, the penalty mask) at ``prefix`` lacks a file."""
    missing = [end for end in (".bin", ".idx", ".json")[: 3 if mask else 2] if not Path(prefix + end).is_file()]
    if missing:
        adopt = f"adopt a mask made elsewhere with: ifguide import-mask --mask {prefix}"
        fault = f"{key}: {prefix} has no file {', '.join(prefix + end for end in missing)}"
        yield with_hint(fault, adopt if missing == [".json"] else near_prefix(prefix))


def mask_key(config: Mapping[str, Any]) -> str:
    """Which of the two keys names the masks."""
    return "penalty_data_path" if config.get("penalty_data_path") else "train_penalty_data_paths"
