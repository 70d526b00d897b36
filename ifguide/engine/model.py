"""NeoX's model keys -> a transformers model of the architecture they describe, initialised as NeoX names it.

Shapes: V padded vocabulary, H hidden_size, L num_layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.architectures.architecture import from_training_keys, to_neox_keys
from ifguide.architectures.registry import Family, family_named, family_of, huggingface_config
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.engine.settings import TrainSettings
from ifguide.errors import MismatchError
from ifguide.models.loading import load_causal_model
from ifguide.penalties.hiding import hidden_token
from ifguide.penalties.keys import action_of

# what two models may differ in and be the same function of the same weights
_NO_PART_OF_THE_FUNCTION = (
    "seq_length", "max_position_embeddings", "hidden_dropout", "attention_dropout", "init_method_std",
)  # fmt: skip


def padded_vocabulary(size: int, multiple: int) -> int:
    """V: ``size`` rounded up to ``multiple``, as NeoX pads without model parallelism."""
    return math.ceil(size / multiple) * multiple


def transformers_config(settings: TrainSettings, vocab_size: int, eod: int | None) -> Any:
    """The transformers configuration of the model that ``settings`` describe.

    Args:
        vocab_size: of the tokenizer, before padding.
        eod: end-of-document token, which generation stops at.
    """
    from transformers import AutoConfig

    padded_vocab_size = padded_vocabulary(vocab_size, settings.make_vocab_size_divisible_by)
    architecture = from_training_keys(vars(settings.keys), padded_vocab_size)
    special = {"bos_token_id": eod, "eos_token_id": eod}
    return AutoConfig.for_model(**huggingface_config(family_of(architecture), architecture, torch.float32, special))


def hidden_input(settings: TrainSettings, tokenizer: Tokenizer) -> int | None:
    """The id that training reads in place of hidden tokens; None unless ``penalty_action`` is ``hide``.

    Raises:
        InputError: ``penalty_hidden_token`` is none of the model's tokens, or the one that ends documents.
    """
    if action_of(vars(settings.keys)) != "hide":
        return None
    value = settings.keys.penalty_hidden_token
    assert value is not None, "penalty_faults lets no such configuration through"
    rows = padded_vocabulary(tokenizer.vocab_size, settings.make_vocab_size_divisible_by)
    return hidden_token(value, tokenizer.token_id, rows, {tokenizer.eod} - {None})


def never_generate(model: Any, ids: Iterable[int]) -> None:
    """Let generation from the model, and from a folder of it, leave out ``ids`` beside those that it leaves out."""
    known = model.generation_config.suppress_tokens or ()
    model.generation_config.suppress_tokens = sorted({*known, *ids})


def build_model(settings: TrainSettings, vocab_size: int, eod: int | None) -> Any:
    """A freshly initialised fp32 model (GPT-NeoX, or Llama with norm rmsnorm); the same for every number of processes.

    Args:
        vocab_size, eod: as in `transformers_config`.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(transformers_config(settings, vocab_size, eod))
    initialise(model, settings, family_named(model.config.model_type))
    return model


@torch.no_grad()
def initialise(model: torch.nn.Module, settings: TrainSettings, family: Family) -> None:
    """Draw every matrix by NeoX's rule for it, in the order of ``named_parameters``, from one seeded
    generator; biases 0, norms 1."""
    generator = torch.Generator().manual_seed(settings.seed)
    inner = _initialiser(settings.init_method, settings)
    residual = _initialiser(settings.output_layer_init_method, settings)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            draw = residual if name.endswith(family.residual_outputs) else inner
            draw(parameter, generator)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1.0)


def _initialiser(name: str, settings: TrainSettings) -> Callable[[Tensor, torch.Generator], Any]:
    if name == "xavier_uniform":
        return lambda weight, generator: torch.nn.init.xavier_uniform_(weight, generator=generator)
    if name == "xavier_normal":
        return lambda weight, generator: torch.nn.init.xavier_normal_(weight, generator=generator)
    std = {
        "normal": settings.init_method_std,
        "scaled_normal": settings.init_method_std / math.sqrt(2 * settings.num_layers),
        "single_residual_scaled_normal": settings.init_method_std / math.sqrt(settings.num_layers),
        # Nguyen & Salazar 2019, "Transformers without Tears"
        "small_init": math.sqrt(2 / (5 * settings.hidden_size)),
        # Wang's initialisation in NeoX: 2 / (L sqrt(H))
        "wang_init": 2 / settings.num_layers / math.sqrt(settings.hidden_size),
    }[name]
    return lambda weight, generator: weight.normal_(0.0, std, generator=generator)


def load_huggingface_weights(model: Any, folder: str | Path, key: str = "load:") -> None:
    """Copy the weights of the Hugging Face model in ``folder`` into ``model``.

    Args:
        key: what names the folder, which begins a message.

    Raises:
        InputError: the folder holds no readable model of this kind, or not all weights.
        MismatchError: another architecture than ``model``'s; names what differs.
    """
    source = load_causal_model(folder, torch.float32, key)
    theirs, ours = _function(source.config), _function(model.config)
    differing = [
        f"{key} {theirs.get(key)} there, {ours.get(key)} configured"
        for key in dict.fromkeys((*theirs, *ours))
        if theirs.get(key) != ours.get(key)
    ]
    if differing:
        raise MismatchError(f"{key} {folder} is of another architecture: {'; '.join(differing)}")
    model.load_state_dict(source.state_dict())
    if unheard := source.generation_config.suppress_tokens:
        never_generate(model, unheard)


def _function(config: Any) -> dict[str, Any]:
    """What the weights of a model with this transformers configuration compute, in NeoX's keys."""
    architecture, _ = family_named(config.model_type).architecture(config)
    keys = {"padded vocabulary": architecture.padded_vocab_size, **to_neox_keys(architecture)}
    return {key: value for key, value in keys.items() if key not in _NO_PART_OF_THE_FUNCTION}


def is_huggingface_folder(folder: str | Path) -> bool:
    """Whether ``folder`` is a Hugging Face model folder (and no DeepSpeed checkpoint folder)."""
    return (Path(folder) / "config.json").is_file()
