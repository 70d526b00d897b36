"""NeoX's model keys -> a transformers GPT-NeoX model, initialised as NeoX names its initialisations.

Shapes: V padded vocabulary, H hidden_size, L num_layers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ifguide.engine.arguments import TrainConfig
from ifguide.errors import InputError, MismatchError

if TYPE_CHECKING:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

# the linear layers that write into the residual stream: NeoX's output_layer_init_method
_RESIDUAL_OUTPUTS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")


def padded_vocabulary(size: int, multiple: int) -> int:
    """V: ``size`` rounded up to ``multiple``, as NeoX pads without model parallelism."""
    return math.ceil(size / multiple) * multiple


def huggingface_config(config: TrainConfig, vocab_size: int, eod: int | None) -> GPTNeoXConfig:
    """The transformers configuration of the model that ``config`` describes.

    Args:
        vocab_size: of the tokenizer, before padding.
        eod: end-of-document token, which generation stops at.
    """
    from transformers import GPTNeoXConfig

    assert config.hidden_size is not None
    return GPTNeoXConfig(
        vocab_size=padded_vocabulary(vocab_size, config.make_vocab_size_divisible_by),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size or 4 * config.hidden_size,
        hidden_act=config.activation,
        max_position_embeddings=config.max_position_embeddings,
        layer_norm_eps=config.layernorm_epsilon,
        rotary_pct=config.rotary_pct,
        rotary_emb_base=config.rotary_emb_base,
        use_parallel_residual=config.gpt_j_residual,
        tie_word_embeddings=not config.no_weight_tying,
        attention_bias=config.use_bias_in_attn_linear,
        hidden_dropout=config.hidden_dropout,
        attention_dropout=config.attention_dropout,
        initializer_range=config.init_method_std,
        bos_token_id=eod,
        eos_token_id=eod,
        use_cache=True,
    )


def build_model(config: TrainConfig, vocab_size: int, eod: int | None) -> GPTNeoXForCausalLM:
    """A freshly initialised fp32 model; the same for every number of processes."""
    from transformers import GPTNeoXForCausalLM

    model = GPTNeoXForCausalLM(huggingface_config(config, vocab_size, eod))
    initialise(model, config)
    return model


@torch.no_grad()
def initialise(model: torch.nn.Module, config: TrainConfig) -> None:
    """Draw every matrix by NeoX's rule for it, in the order of ``named_parameters``, from one seeded
    generator; biases 0, norms 1."""
    generator = torch.Generator().manual_seed(config.seed)
    inner = _initialiser(config.init_method, config)
    residual = _initialiser(config.output_layer_init_method, config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            draw = residual if name.endswith(_RESIDUAL_OUTPUTS) else inner
            draw(parameter, generator)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1.0)


def _initialiser(name: str, config: TrainConfig) -> Callable[[Tensor, torch.Generator], Any]:
    assert config.num_layers is not None and config.hidden_size is not None
    if name == "xavier_uniform":
        return lambda weight, generator: torch.nn.init.xavier_uniform_(weight, generator=generator)
    if name == "xavier_normal":
        return lambda weight, generator: torch.nn.init.xavier_normal_(weight, generator=generator)
    std = {
        "normal": config.init_method_std,
        "scaled_normal": config.init_method_std / math.sqrt(2 * config.num_layers),
        "single_residual_scaled_normal": config.init_method_std / math.sqrt(config.num_layers),
        # Nguyen & Salazar 2019, "Transformers without Tears"
        "small_init": math.sqrt(2 / (5 * config.hidden_size)),
        # Wang's initialisation in NeoX: 2 / (L sqrt(H))
        "wang_init": 2 / config.num_layers / math.sqrt(config.hidden_size),
    }[name]
    return lambda weight, generator: weight.normal_(0.0, std, generator=generator)


def load_huggingface_weights(model: GPTNeoXForCausalLM, folder: str | Path) -> None:
    """Copy the weights of the Hugging Face model in ``folder`` into ``model``.

    Raises:
        InputError: the folder holds no readable weights.
        MismatchError: another architecture; names the first differing tensor.
    """
    weights = _read_weights(Path(folder))
    wanted = model.state_dict()
    if model.config.tie_word_embeddings:
        # a tied export may hold the matrix once or twice
        wanted.pop("embed_out.weight", None)
        weights.pop("embed_out.weight", None)
    for name, tensor in wanted.items():
        if name not in weights:
            raise MismatchError(f"load: {folder} has no weight {name}; the model keys describe another architecture")
        if weights[name].shape != tensor.shape:
            raise MismatchError(
                f"load: {folder} has {name} of shape {list(weights[name].shape)}, "
                f"the model keys describe {list(tensor.shape)}"
            )
    model.load_state_dict({name: weights[name] for name in wanted}, strict=False)


def is_huggingface_folder(folder: str | Path) -> bool:
    """Whether ``folder`` is a Hugging Face model folder (and no DeepSpeed checkpoint folder)."""
    return (Path(folder) / "config.json").is_file()


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        else:
            names = ["model.safetensors"]
        weights: dict[str, Tensor] = {}
        for name in names:
            weights.update(load_file(folder / name))
    except FileNotFoundError as error:
        raise InputError(f"load: {folder} has no weights ({Path(error.filename or names[0]).name} is missing)") from None
    except Exception as error:  # safetensors raises its own type for a damaged file
        raise InputError(f"load: the weights in {folder} cannot be read: {error}") from None
    return weights
