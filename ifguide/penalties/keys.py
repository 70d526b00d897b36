"""The YAML keys that IF-Guide adds to GPT-NeoX's, and what can be wrong with them.

One definition for both engines: the embedded trainer's configuration inherits `PenaltyKeys`, the patch
of a GPT-NeoX checkout adds the same fields to ``NeoXArgs``. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ifguide.config.hints import near_prefix, with_hint


@dataclass
class PenaltyKeys:
    """The keys of IF-Guide. Without a mask path no key has an effect, and setting one is a fault."""

    # ---- IF-Guide ----
    penalty_data_path: str | None = None
    """Penalty mask aligned with data_path (made by `ifguide build-mask`); acts on its training part."""
    train_penalty_data_paths: list[str] | None = None
    """Penalty masks, parallel to train_data_paths; "" for a dataset without one."""
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


def values_of(config: Any) -> dict[str, Any]:
    """What the checks below need of a configuration object (`TrainConfig` or ``NeoXArgs``), as a mapping."""
    return {key: getattr(config, key) for key in (*KEYS, "data_path", "train_data_paths")}


def mask_pairs(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(prefix of a training dataset, prefix of its mask); datasets without a mask are left out."""
    if config.get("penalty_data_path"):
        return [(config["data_path"], config["penalty_data_path"])]
    masks = config.get("train_penalty_data_paths") or []
    return [(data, mask) for data, mask in zip(config.get("train_data_paths") or [], masks) if mask]


def penalty_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Values and combinations that cannot be meant, one line each. Types are right already."""
    config = {**_DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
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
    form, clip = config["penalty_form"], config["penalty_clip"]
    if form == "clipped" and not (clip and 0 < clip < math.inf):
        yield "penalty_clip: penalty_form clipped needs it, in nats, above 0 (e.g. 10.0)"
    if form != "clipped" and clip is not None:
        yield f"penalty_clip: has no effect with penalty_form {form}; set penalty_form: clipped"
    if not mask_path and masks is None:
        for key in ("penalty_lambda", "penalty_form", "penalty_warmup_iters"):
            if config[key] != _DEFAULTS[key]:
                yield f"{key}: has no effect without penalty_data_path or train_penalty_data_paths"


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
