"""Which Hugging Face architectures can be scored and trained here, told from ``config.json`` before weights are read.

Scoring runs the model with an attention of our own (it carries forward-mode tangents) and takes the logits for one
linear function of the last hidden states. A model can be scored if transformers lets its attention be exchanged and
nothing else changes the scores of attention or the logits. What that rule lets through is compared with the model's
own output on the first batch (`ScoredModel.check_architecture`); what it refuses need not be loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifguide.compat.transformers import attention_is_exchangeable, causal_class
from ifguide.errors import InputError
from ifguide.system.files import read_json

# model_type -> the name that people use, of what is tested in full
SCORED = {
    "gpt_neox": "GPT-NeoX",
    "llama": "Llama",
    "gpt2": "GPT-2",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mistral": "Mistral",
}
TRAINED = ("gpt_neox", "llama")

# keys of a configuration that bend attention's scores or the logits -> the value at which they do nothing
_BENDS = {
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "logit_scale": 1,
    "logits_scaling": 1,
    "alibi": False,
}


def require_scorable(directory: str | Path, config: Mapping[str, Any]) -> None:
    """Refuse what cannot be scored.

    Args:
        directory: of the model, for the message.
        config: what its ``config.json`` holds.

    Raises:
        InputError: its architecture cannot be scored; says why, and which can.
    """
    if reason := scoring_obstacle(config):
        known = _listed(tuple(SCORED.values()))
        raise InputError(
            f"model {directory} (model_type {config.get('model_type')}) cannot be scored: {reason}; {known} models can"
        )


def require_trainable(directory: str | Path) -> None:
    """Refuse a Hugging Face folder whose model the embedded engine cannot fine-tune.

    Raises:
        InputError: its architecture is another, or its ``config.json`` cannot be read.
    """
    config = read_json(Path(directory) / "config.json", "model configuration")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind in TRAINED:
        return
    raise InputError(f"{directory} holds a model of type {kind}; the embedded engine trains {_listed(TRAINED)} models")


def scoring_obstacle(config: Mapping[str, Any]) -> str:
    """Why a model of this configuration cannot be scored, in a few words; "" if nothing speaks against it."""
    from transformers import AutoConfig

    kind = config.get("model_type")
    name = causal_class(kind) if isinstance(kind, str) else None
    if not isinstance(kind, str) or name is None:
        return "transformers has no causal language model of that type"
    if kind in SCORED:
        return ""
    if not attention_is_exchangeable(name):
        return "its attention cannot be exchanged, and scoring needs one that carries forward-mode tangents"
    # a key that the file leaves out has the type's own default
    defaults = AutoConfig.for_model(kind)
    for key, neutral in _BENDS.items():
        value = config.get(key, getattr(defaults, key, None))
        if value not in (None, neutral):
            what = "attention's scores" if key in ("attn_logit_softcapping", "alibi") else "its logits"
            return f"{key} {value} changes {what}"
    return ""


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
