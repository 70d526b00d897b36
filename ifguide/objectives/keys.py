"""The YAML keys of the objectives beside language modelling, and what can be wrong with them.

They are keys of the embedded engine: the neox engine has `lm` with penalties, and GPT-NeoX's own ``train_impl: dpo``.
Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ifguide.penalties.keys import action_of

LM, DPO, NPO, RMU, REPO = "lm", "dpo", "npo", "rmu", "repo"


@dataclass
class ObjectiveKeys:
    """Keys of dpo, npo, rmu and repo. A key of one objective is a fault beside another."""

    # ---- other objectives ----
    pairs_data_path: str | None = None
    """Pairs of dpo, npo, rmu and repo: JSONL with prompt, chosen and rejected (docs/objectives.md)."""
    reference: str | None = None
    """Hugging Face folder of the frozen reference, of the model's architecture. Default: the weights at the start."""
    dpo_beta: float = 0.1
    """β of DPO: the larger, the closer the model stays to the reference."""
    npo_beta: float = 0.1
    """β of NPO: the smaller, the closer it is to plain gradient ascent."""
    npo_retain: float = 1.0
    """Weight of NPO's retain term, the cross-entropy on retain data; 0 leaves it out."""
    npo_retain_data: Literal["chosen", "text"] = "chosen"
    """Retain data of npo: the chosen continuations, or the packed text of the training datasets."""
    rmu_layer: int | None = None
    """Block, from 1, whose output RMU steers; default a third of num_layers, rounded up."""
    rmu_coefficient: float | None = None
    """c of RMU: the length of the vector that rejected tokens are steered to. Default: their mean norm at the start."""
    rmu_alpha: float = 100.0
    """α of RMU: weight of its retain term."""
    rmu_retain_data: Literal["chosen", "text"] = "chosen"
    """Retain data of rmu: the chosen continuations, or the packed text of the training datasets."""
    rmu_trains: Literal["down", "all"] = "down"
    """What RMU trains: the MLP's output matrices of block rmu_layer and the two before it, or all parameters."""
    repo_lambda: float = 0.1
    """Largest weight λ of REPO's adversarial loss."""
    repo_schedule: Literal["dann", "constant"] = "dann"
    """λ over the iterations after the warm-up: DANN's 2 / (1 + exp(-10 q)) - 1 with q from 0 to 1, or constant."""
    repo_layer: int | None = None
    """Block M, from 1, whose output the discriminator reads; default the last."""
    repo_retain: Literal["kl", "ce", "none"] = "kl"
    """Retain term on benign tokens: KL from the reference, cross-entropy, or none."""
    repo_labels: Literal["pairs", "mask"] | None = None
    """Where toxic and benign tokens come from. Default: pairs where there is pairs_data_path, else the masks."""
    repo_penalty: bool = True
    """With masks: whether (M4) is part of the objective; false: they only say which tokens are toxic."""
    repo_detach_benign: bool = False
    """true: only toxic tokens' representations move."""
    repo_confusion: bool = False
    """true: the model pulls the discriminator's output towards 1/2, in place of reversing its gradient."""
    repo_discriminator: Literal["linear", "mlp"] = "linear"
    """The discriminator: linear, or with one hidden layer of hidden_size."""
    repo_discriminator_lr: float = 1.0e-3
    """Learning rate of its own Adam, constant."""
    repo_discriminator_clip: float = 1.0
    """Largest L2 norm of its gradient; 0 turns it off."""
    repo_warmup_iters: int = 100
    """First iterations, in which the discriminator alone is trained; none at repo_lambda 0."""
    lora_rank: int = 0
    """Rank of LoRA adapters on every linear layer but the output (needs peft); 0: all parameters are trained."""
    lora_alpha: int = 16
    """Scale of LoRA: its update is multiplied by lora_alpha / lora_rank."""
    lora_dropout: float = 0.0
    """Dropout probability of LoRA's input."""


KEYS = tuple(field.name for field in fields(ObjectiveKeys))
_DEFAULTS = {field.name: field.default for field in fields(ObjectiveKeys)}
_LORA = tuple(key for key in KEYS if key.startswith("lora_"))
# keys of one objective beside those with its name in front
_USES = {
    LM: {*_LORA},
    DPO: {*_LORA, "pairs_data_path", "reference"},
    NPO: {*_LORA, "pairs_data_path", "reference"},
    RMU: {"pairs_data_path", "reference"},
    REPO: {*_LORA, "pairs_data_path", "reference"},
}
# what must be finite, and above 0 or at least 0
_POSITIVE = ("dpo_beta", "npo_beta", "rmu_coefficient", "repo_discriminator_lr", "lora_alpha")
_NOT_NEGATIVE = (
    "npo_retain", "rmu_alpha", "repo_lambda", "repo_discriminator_clip", "repo_warmup_iters", "lora_rank",
)  # fmt: skip


def rmu_layer(keys: Any, num_layers: int) -> int:
    """The block that RMU steers, from 1."""
    return keys.rmu_layer or math.ceil(num_layers / 3)


def repo_labels(keys: Any) -> str:
    """Where REPO's labels come from: ``pairs`` or ``mask``."""
    return keys.repo_labels or ("pairs" if keys.pairs_data_path else "mask")


def repo_warmup(keys: Any) -> int:
    """Iterations that belong to the discriminator alone: at λ = 0 there is nothing to prepare."""
    return keys.repo_warmup_iters if keys.repo_lambda else 0


def needs_reference(keys: Any) -> bool:
    """Whether the objective compares with a frozen model."""
    return keys.objective in (DPO, NPO, RMU) or (keys.objective == REPO and keys.repo_retain == "kl")


def objective_faults(config: Any, masked: bool) -> Iterator[str]:
    """Values and combinations that cannot be meant, one line each. Types are right already, the objective is known.

    Args:
        config: with these keys, ``objective``, ``num_layers`` and ``train_iters``.
        masked: whether a training dataset has a penalty mask.
    """
    name = config.objective
    values = {key: getattr(config, key) for key in KEYS}
    yield from _ranges(values)
    for key, value in values.items():
        if name in _USES and value != _DEFAULTS[key] and not (key.startswith(f"{name}_") or key in _USES[name]):
            yield f"{key}: has no effect with objective {name}" + _owner(key)
    if name in (DPO, NPO, RMU):
        if not config.pairs_data_path:
            yield f"pairs_data_path: objective {name} needs it: JSONL with prompt, chosen and rejected"
        if masked:
            yield f"objective: {name} has no penalty; leave the masks out, or take objective lm or repo"
    if name == REPO:
        yield from _repo(config, masked)
    if name in _USES and config.reference:
        if not needs_reference(config):
            if name != LM:
                yield "reference: has no effect without repo_retain kl"
        elif config.lora_rank and name != RMU:
            yield "reference: with lora_rank it is the model without its adapters; leave the key out"
    if config.num_layers:
        for key in ("rmu_layer", "repo_layer"):
            if values[key] is not None and not 1 <= values[key] <= config.num_layers:
                yield f"{key}: must be a block from 1 to num_layers {config.num_layers}, got {values[key]}"
    for key in _LORA[1:]:
        if not config.lora_rank and values[key] != _DEFAULTS[key]:
            yield f"{key}: has no effect without lora_rank"


def _ranges(values: Mapping[str, Any]) -> Iterator[str]:
    for key in _POSITIVE:
        if values[key] is not None and not 0 < values[key] < math.inf:
            yield f"{key}: must be a finite number above 0, got {values[key]}"
    for key in _NOT_NEGATIVE:
        if not 0 <= values[key] < math.inf:
            yield f"{key}: must be a finite number of at least 0, got {values[key]}"
    if not 0 <= values["lora_dropout"] < 1:
        yield f"lora_dropout: must be in [0, 1), got {values['lora_dropout']}"


def _repo(config: Any, masked: bool) -> Iterator[str]:
    if not (config.pairs_data_path or masked):
        yield "pairs_data_path: objective repo needs it, or a penalty mask in its place"
    elif repo_labels(config) == "mask" and not masked:
        yield "repo_labels: mask needs a penalty mask (penalty_data_path or train_penalty_data_paths)"
    elif repo_labels(config) == "pairs" and not config.pairs_data_path:
        yield "repo_labels: pairs needs pairs_data_path"
    elif repo_labels(config) == "mask" and config.pairs_data_path:
        yield "pairs_data_path: has no effect with repo_labels mask"
    if not config.repo_penalty and not masked:
        yield "repo_penalty: has no effect without a penalty mask"
    elif not config.repo_penalty and repo_labels(config) == "pairs":
        yield "repo_penalty: false leaves the masks without a use where the labels come from pairs; leave them out"
    if masked and action_of(vars(config)) == "hide":
        yield "penalty_action: hide replaces the tokens that objective repo reads; take drop or penalise"
    if not (config.repo_lambda or config.repo_retain != "none" or (masked and config.repo_penalty)):
        yield "repo_lambda: 0 without a retain term and without (M4) leaves nothing to minimise"
    if config.repo_confusion and config.repo_lambda == 0:
        yield "repo_confusion: has no effect with repo_lambda 0"
    warmup = repo_warmup(config)
    if config.train_iters and warmup >= config.train_iters:
        yield (
            f"repo_warmup_iters: {warmup} of train_iters {config.train_iters} leave the model no iteration; "
            "train longer, or warm up for fewer"
        )


def _owner(key: str) -> str:
    owner = key.split("_")[0]
    return f"; it belongs to objective {owner}" if owner in (DPO, NPO, RMU, REPO) else ""


def missing_files(config: Any) -> Iterator[str]:
    """A line for each file of these keys that is not there."""
    if config.pairs_data_path and not Path(config.pairs_data_path).is_file():
        yield f"pairs_data_path: {config.pairs_data_path} does not exist or is not a file"
    if config.reference and not (Path(config.reference) / "config.json").is_file():
        yield f"reference: {config.reference} is not a Hugging Face folder (no config.json)"
