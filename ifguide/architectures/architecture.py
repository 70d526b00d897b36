"""What a NeoX configuration says about the function that its weights compute.

Sizes: L num_layers, H hidden_size, N num_attention_heads, K num_kv_heads, D = H / N, M MLP width, V padded vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ifguide.config.yaml_files import numbers_as_text
from ifguide.errors import ConfigError

# gated activations: linear1 computes [up; gate], of M rows each, and the MLP is linear2(f(gate) * up)
GATED = ("geglu", "reglu", "swiglu", "bilinear", "glu")

# NeoX's keys that shape the function, with NeoX's defaults; a type stands for "required"
_KEYS: Mapping[str, Any] = {
    "num_layers": int,
    "hidden_size": int,
    "num_attention_heads": int,
    "max_position_embeddings": int,
    "num_kv_heads": 0,
    "norm": "layernorm",
    "layernorm_epsilon": 1e-5,
    "rms_norm_epsilon": 1e-8,
    "activation": "gelu",
    "bias_gelu_fusion": False,
    "gpt_j_residual": False,
    "gpt_j_tied": False,
    "no_weight_tying": False,
    "use_bias_in_attn_linear": True,
    "use_bias_in_mlp": True,
    "rotary_pct": 1.0,
    "rotary_emb_base": 10000,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "init_method_std": 0.02,
}

# keys of which Hugging Face's two architectures have one value only, and what is said of the others
_ONLY: Mapping[str, tuple[Any, str]] = {
    "pos_emb": ("rotary", "only rotary position embeddings can be represented (NeoX's default is learned)"),
    "use_qk_layernorm": (False, "normalised queries and keys cannot be represented"),
    "moe_num_experts": (1, "mixtures of experts cannot be represented"),
    "use_mup": (False, "muP's multipliers cannot be represented"),
    "te_layernorm_mlp": (False, "Transformer Engine stores these weights under other names; not supported"),
    "te_mha": (False, "Transformer Engine stores these weights under other names; not supported"),
    "te_fp8_mha": (False, "Transformer Engine stores these weights under other names; not supported"),
    "output_layer_parallelism": ("column", "NeoX itself runs only column"),
}
_DEFAULT_POS_EMB = "learned"


@dataclass(frozen=True)
class Architecture:
    """The function that a set of NeoX weights is, in NeoX's terms."""

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_kv_heads: int
    """Equal to num_attention_heads unless attention is grouped: that changes how NeoX stores queries, keys, values."""
    mlp_width: int
    """M: inputs of the MLP's second layer, whatever the keys say that NeoX computed it from."""
    padded_vocab_size: int
    max_position_embeddings: int
    norm: str
    """layernorm or rmsnorm."""
    norm_epsilon: float
    activation: str
    """NeoX's name."""
    tanh_gelu: bool
    """bias_gelu_fusion: NeoX's fused gelu is the tanh approximation, another function than its unfused one."""
    parallel_residual: bool
    """gpt_j_residual: x + attention(norm(x)) + mlp(norm(x))."""
    tied_norms: bool
    """gpt_j_tied: both branches read the first norm."""
    tied_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    rotary_pct: float
    rotary_base: float
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    init_method_std: float = 0.02

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key/value head."""
        return self.num_kv_heads != self.num_attention_heads

    @property
    def gated(self) -> bool:
        """Whether the MLP's first layer holds [up; gate]."""
        return self.activation in GATED


def mlp_width(hidden_size: int, intermediate_size: int | None, activation: str) -> int:
    """M as NeoX derives it with ``mlp_multiple_of: 1``: a gated MLP takes two thirds of it for [up; gate]."""
    width = intermediate_size or 4 * hidden_size
    return int(width * 2 / 3) // 2 if activation.lower() in GATED else width


def from_neox_keys(keys: Mapping[str, Any], mlp_width: int, padded_vocab_size: int) -> Architecture:
    """The architecture that NeoX builds from ``keys`` (all its YAML files, merged).

    Args:
        mlp_width, padded_vocab_size: M and V, taken from the weights: how NeoX derives M from intermediate_size
            changed over its revisions, and V depends on the tokenizer and on the run's tensor parallelism.

    Raises:
        ConfigError: every key that is missing, of a wrong type, or means what Hugging Face cannot represent.
    """
    values, faults = _typed(keys)
    faults += _unsupported(keys)
    if faults:
        raise ConfigError(faults)
    norm = values["norm"].lower()
    return Architecture(
        num_layers=values["num_layers"],
        hidden_size=values["hidden_size"],
        num_attention_heads=values["num_attention_heads"],
        num_kv_heads=values["num_kv_heads"] or values["num_attention_heads"],
        mlp_width=mlp_width,
        padded_vocab_size=padded_vocab_size,
        max_position_embeddings=values["max_position_embeddings"],
        norm=norm,
        norm_epsilon=values["rms_norm_epsilon" if norm == "rmsnorm" else "layernorm_epsilon"],
        activation=values["activation"].lower(),
        tanh_gelu=values["bias_gelu_fusion"] and values["activation"].lower() == "gelu",
        parallel_residual=values["gpt_j_residual"],
        tied_norms=values["gpt_j_tied"] and values["gpt_j_residual"],
        tied_embeddings=not values["no_weight_tying"],
        attention_bias=values["use_bias_in_attn_linear"],
        mlp_bias=values["use_bias_in_mlp"],
        rotary_pct=values["rotary_pct"],
        rotary_base=values["rotary_emb_base"],
        hidden_dropout=values["hidden_dropout"],
        attention_dropout=values["attention_dropout"],
        init_method_std=values["init_method_std"],
    )


def from_training_keys(keys: Mapping[str, Any], padded_vocab_size: int) -> Architecture:
    """The architecture of a model that is yet to be made, with NeoX's width of its MLP.

    Raises:
        ConfigError: as `from_neox_keys`.
    """
    width = mlp_width(keys["hidden_size"], keys["intermediate_size"], keys["activation"])
    return from_neox_keys(keys, width, padded_vocab_size)


def to_neox_keys(architecture: Architecture) -> dict[str, Any]:
    """The YAML keys that make NeoX build ``architecture``."""
    a = architecture
    epsilon = "rms_norm_epsilon" if a.norm == "rmsnorm" else "layernorm_epsilon"
    keys: dict[str, Any] = {
        "num_layers": a.num_layers,
        "hidden_size": a.hidden_size,
        "num_attention_heads": a.num_attention_heads,
        # a gated MLP takes two thirds of intermediate_size for [up; gate]: 3M * 2/3 = 2M
        "intermediate_size": 3 * a.mlp_width if a.gated else a.mlp_width,
        "seq_length": a.max_position_embeddings,
        "max_position_embeddings": a.max_position_embeddings,
        "pos_emb": "rotary",
        "rotary_pct": float(a.rotary_pct),
        "rotary_emb_base": int(a.rotary_base),
        "norm": a.norm,
        epsilon: float(a.norm_epsilon),
        "activation": a.activation,
        "bias_gelu_fusion": a.tanh_gelu,
        "gpt_j_residual": a.parallel_residual,
        "gpt_j_tied": a.tied_norms,
        "no_weight_tying": not a.tied_embeddings,
        "use_bias_in_attn_linear": a.attention_bias,
        "use_bias_in_mlp": a.mlp_bias,
        "output_layer_parallelism": "column",
        "hidden_dropout": float(a.hidden_dropout),
        "attention_dropout": float(a.attention_dropout),
        "init_method_std": float(a.init_method_std),
    }
    if a.grouped:
        keys["num_kv_heads"] = a.num_kv_heads
    return keys


def neox_faults(architecture: Architecture) -> list[str]:
    """Why NeoX's keys cannot express ``architecture``, one line each."""
    faults = []
    if architecture.rotary_base != int(architecture.rotary_base):
        faults.append(f"rotary base {architecture.rotary_base}: NeoX's rotary_emb_base is an integer")
    if architecture.mlp_width % 2 and not architecture.gated:
        faults.append(f"intermediate_size {architecture.mlp_width}: NeoX rounds it up to an even number")
    return faults


def rope_faults(rope: Mapping[str, Any]) -> list[str]:
    """Rotary scaling, which NeoX does not have."""
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return []
    return [
        f"rope_type {kind!r}: NeoX has no scaled rotary frequencies, the model would see other positions; "
        'to convert it all the same, replace it by "default" in config.json: then --check compares with that'
    ]


def _typed(keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Every value of `_KEYS` (NeoX's default where ``keys`` is silent), and the faults of those given."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for key, default in _KEYS.items():
        value = keys.get(key)
        kind = default if isinstance(default, type) else type(default)
        as_text = list(numbers_as_text(key, value))
        if as_text:
            faults += as_text
        elif value is None and isinstance(default, type):
            faults.append(f"{key}: required")
        elif value is not None and not _fits(value, kind):
            faults.append(f"{key}: expected {kind.__name__}, got {value!r}")
        else:
            values[key] = default if value is None else value
    heads, hidden, grouped = (values.get(key) for key in ("num_attention_heads", "hidden_size", "num_kv_heads"))
    if heads and hidden and hidden % heads:
        faults.append(f"hidden_size: {hidden} is not a multiple of num_attention_heads ({heads})")
    if heads and grouped and heads % grouped:
        faults.append(f"num_kv_heads: {grouped} does not divide num_attention_heads ({heads})")
    return values, faults


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def _unsupported(keys: Mapping[str, Any]) -> list[str]:
    """One line for each key whose value no Hugging Face architecture of ours has."""
    faults = []
    for key, (only, why) in _ONLY.items():
        default = _DEFAULT_POS_EMB if key == "pos_emb" else only
        value = default if keys.get(key) is None else keys[key]
        if (value.lower() if isinstance(value, str) else value) != only:
            faults.append(f"{key}: {value!r}: {why}")
    kinds = {kind.lower() for kind in _names(keys.get("attention_config"))}
    if kinds - {"global", "flash"}:
        named = ", ".join(sorted(kinds - {"global", "flash"}))
        faults.append(f"attention_config: {named}: only global and flash attention can be represented")
    if keys.get("sliding_window_width") is not None and "flash" in kinds:
        faults.append("sliding_window_width: sliding windows cannot be represented")
    soft_prompt = keys.get("soft_prompt_tuning")
    if isinstance(soft_prompt, dict) and soft_prompt.get("enabled"):
        faults.append("soft_prompt_tuning: a soft prompt cannot be represented")
    if keys.get("train_impl") == "rm":
        faults.append("train_impl: 'rm': a reward model has no vocabulary to predict; not supported")
    return faults


def _names(item: Any) -> Iterable[str]:
    """Every text in nested lists."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, list):
        for part in item:
            yield from _names(part)
