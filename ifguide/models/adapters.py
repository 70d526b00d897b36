"""LoRA by peft: adapters beside every linear layer but the output; the model without them is what it was before.

peft is an extra (``pip install gpt-neox-ifguide[lora]``) and is imported where it is used.
"""

from __future__ import annotations

from typing import Any

import torch

from ifguide.errors import InputError
from ifguide.requirements.needs import how_to_install

_ADAPTER = "default"


def add_adapters(model: Any, rank: int, alpha: int, dropout: float, seed: int) -> Any:
    """``model`` with fresh adapters, which alone are trained; they start without an effect.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise InputError(f"LoRA needs the package peft, not installed here; {how_to_install(['peft'])}") from None
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def has_adapters(model: Any) -> bool:
    """Whether `add_adapters` made ``model``."""
    return hasattr(model, "disable_adapter")


@torch.no_grad()
def merged(model: Any) -> Any:
    """A plain transformers model of the same function, with the adapters added into its weights; a copy."""
    base = model.get_base_model()
    plain = type(base)(base.config)
    wrapped = {name: module for name, module in base.named_modules() if hasattr(module, "get_delta_weight")}
    state = {}
    for name, value in base.state_dict().items():
        if ".lora_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        owner = wrapped.get(name.removesuffix(".weight"))
        state[name] = value if owner is None else value + owner.get_delta_weight(_ADAPTER).to(value.dtype)
    plain.load_state_dict(state)
    plain.generation_config = base.generation_config
    return plain.to(next(base.parameters()).dtype)


def unadapted_state(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the model without its adapters, by the names that they have in it."""
    return {name: value for name, value in model.state_dict().items() if ".lora_" not in name}
