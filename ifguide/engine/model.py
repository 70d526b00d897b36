"""NeoX's model keys -> a transformers GPT-NeoX model, initialised as NeoX names its initialisations.

Shapes: V padded vocabulary, H hidden_size, L num_layers.
"""

from __future__ import annotations

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

# what makes two models the same function of the same weights: transformers' name -> NeoX's key
_ARCHITECTURE = {
    "vocab_size": "padded vocabulary",
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "activation, bias_gelu_fusion",
    "layer_norm_eps": "layernorm_epsilon",
    "use_parallel_residual": "gpt_j_residual",
    "rope_parameters": "rotary_pct, rotary_emb_base",
    "attention_bias": "use_bias_in_attn_linear",
    "tie_word_embeddings": "weight tying",
}
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

    assert config.hidden_size and config.num_layers and config.num_attention_heads and config.max_position_embeddings
    return GPTNeoXConfig(
        vocab_size=padded_vocabulary(vocab_size, config.make_vocab_size_divisible_by),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size or 4 * config.hidden_size,
        hidden_act="gelu_fast" if config.activation == "gelu" and config.bias_gelu_fusion else config.activation,
        max_position_embeddings=config.max_position_embeddings,
        layer_norm_eps=config.layernorm_epsilon,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": config.rotary_emb_base,
            "partial_rotary_factor": config.rotary_pct,
        },
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
        InputError: the folder holds no readable GPT-NeoX model, or not all weights.
        MismatchError: another architecture than ``model``'s; names what differs.
    """
    from transformers import GPTNeoXForCausalLM

    try:
        loaded: Any = GPTNeoXForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers and safetensors raise many types for a damaged folder
        raise InputError(f"load: {folder} holds no readable GPT-NeoX model: {' '.join(str(error).split())}") from None
    source, loading = loaded
    if loading["missing_keys"]:
        raise InputError(f"load: {folder} lacks the weights {', '.join(sorted(loading['missing_keys'])[:3])}")
    differing = [
        f"{key} {getattr(source.config, name)} there, {getattr(model.config, name)} configured"
        for name, key in _ARCHITECTURE.items()
        if getattr(source.config, name) != getattr(model.config, name)
    ]
    if differing:
        raise MismatchError(f"load: {folder} is of another architecture: {'; '.join(differing)}")
    model.load_state_dict(source.state_dict())


def is_huggingface_folder(folder: str | Path) -> bool:
    """Whether ``folder`` is a Hugging Face model folder (and no DeepSpeed checkpoint folder)."""
    return (Path(folder) / "config.json").is_file()
