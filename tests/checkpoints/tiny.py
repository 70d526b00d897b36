"""Small NeoX checkpoints made by hand: every rank's tensors as NeoX shapes and names them, without the code under test.

Sizes: T ranks, H = 32, N = 4 heads of 8, M = 24 rows of a gated MLP's half or 48 of a plain one, V = 512.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from ifguide.architectures.architecture import Architecture, from_neox_keys

LAYERS, HIDDEN, HEADS, KV_HEADS, VOCABULARY, POSITIONS = 2, 32, 4, 2, 512, 48
WIDTH = {True: 24, False: 48}  # gated or not

_BASE: dict[str, Any] = {
    "num_layers": LAYERS,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "seq_length": POSITIONS,
    "max_position_embeddings": POSITIONS,
    "pos_emb": "rotary",
    "no_weight_tying": True,
    "tokenizer_type": "CharLevelTokenizer",
}
_LLAMA = {"norm": "rmsnorm", "activation": "swiglu", "rms_norm_epsilon": 1e-5, "intermediate_size": 72}

# each has something that another lacks and that conversions get wrong
STYLES: dict[str, dict[str, Any]] = {
    "pythia": {"gpt_j_residual": True, "rotary_pct": 0.25, "bias_gelu_fusion": True},
    "sequential residual": {"rotary_pct": 0.5, "rotary_emb_base": 500, "layernorm_epsilon": 1e-3},
    "tied": {"gpt_j_residual": True, "gpt_j_tied": True, "no_weight_tying": False, "use_bias_in_attn_linear": False},
    "llama grouped": {
        **_LLAMA, "num_kv_heads": KV_HEADS, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False,
        "rotary_emb_base": 500000, "no_weight_tying": False,
    },
    "llama plain": {**_LLAMA, "activation": "geglu"},
}  # fmt: skip


def keys_of(style: str, **changes: Any) -> dict[str, Any]:
    """The YAML keys of a style."""
    return {**_BASE, **STYLES[style], **changes}


def architecture_of(keys: dict[str, Any]) -> Architecture:
    return from_neox_keys(keys, WIDTH["activation" in keys], VOCABULARY)


Ranks = list[dict[int, dict[str, Tensor]]]


def random_ranks(keys: dict[str, Any], ranks: int, seed: int = 0) -> Ranks:
    """Rank -> pipeline layer -> name -> tensor, large enough that nothing is nearly linear."""
    generator = torch.Generator().manual_seed(seed)
    gated = "activation" in keys
    width = WIDTH[gated] // ranks
    heads, kv_heads = HEADS // ranks, keys.get("num_kv_heads", HEADS) // ranks
    size = HIDDEN // HEADS
    # NeoX adds each rank's output bias only with the parallel residual; else the ranks hold copies
    shared_bias = not keys.get("gpt_j_residual", False)

    def draw(*shape: int, mean: float = 0.0, scale: float = 0.3) -> Tensor:
        return torch.randn(shape, generator=generator) * scale + mean

    def norm(name: str) -> dict[str, Tensor]:
        if keys.get("norm") == "rmsnorm":
            return {f"{name}.scale": draw(HIDDEN, mean=1.0)}
        return {f"{name}.weight": draw(HIDDEN, mean=1.0), f"{name}.bias": draw(HIDDEN)}

    def linear(name: str, rows: int, columns: int, bias: bool) -> dict[str, Tensor]:
        return {f"{name}.weight": draw(rows, columns)} | ({f"{name}.bias": draw(rows)} if bias else {})

    attention_bias, mlp_bias = keys.get("use_bias_in_attn_linear", True), keys.get("use_bias_in_mlp", True)
    model: Ranks = [{} for _ in range(ranks)]
    for number in range(LAYERS):
        norms = norm("input_layernorm") | norm("post_attention_layernorm")
        copies: dict[str, Tensor] = {}
        for rank in model:
            state = {
                **norms,
                **linear("attention.query_key_value", (heads + 2 * kv_heads) * size, HIDDEN, attention_bias),
                **linear("attention.dense", HIDDEN, heads * size, attention_bias),
                **linear("mlp.linear1", width * (2 if gated else 1), HIDDEN, mlp_bias),
                **linear("mlp.linear2", HIDDEN, width, mlp_bias),
            }
            if shared_bias:
                outputs = {name: state[name] for name in ("attention.dense.bias", "mlp.linear2.bias") if name in state}
                copies = copies or outputs
                state |= copies
            rank[2 + number] = state
    last = norm("norm")
    for rank in model:
        rank[0] = {"word_embeddings.weight": draw(VOCABULARY // ranks, HIDDEN, scale=1.0)}
        rank[LAYERS + 3] = dict(last)
        if keys["no_weight_tying"]:
            rank[LAYERS + 4] = {"final_linear.weight": draw(VOCABULARY // ranks, HIDDEN)}
    return [dict(sorted(rank.items())) for rank in model]


def save(folder: Path, keys: dict[str, Any], model: Ranks, sequential: bool) -> Path:
    """A NeoX save folder: ``latest`` and ``global_step7`` with its stored configuration and random states."""
    step = folder / "global_step7"
    (step / "configs").mkdir(parents=True)
    (folder / "latest").write_text("global_step7")
    parallel = {"model_parallel_size": len(model), "pipe_parallel_size": 0 if sequential else 1}
    text = {key.replace("_", "-"): value for key, value in keys.items()}  # as many of NeoX's own files spell them
    (step / "configs" / "model.yml").write_text(yaml.safe_dump(text))
    (step / "configs" / "parallel.yml").write_text(yaml.safe_dump(parallel))
    for number, rank in enumerate(model):
        module = {
            f"sequential.{layer}.{name}": tensor for layer, state in rank.items() for name, tensor in state.items()
        }
        state: dict[str, Any] = {
            "module": module if sequential else None,
            "random_rng_state": random.getstate(),
            "np_rng_state": np.random.RandomState(0).get_state(),
            "torch_rng_state": torch.get_rng_state(),
        }
        torch.save(state, step / f"mp_rank_{number:02d}_model_states.pt")
        if not sequential:
            for layer, tensors in rank.items():
                torch.save(tensors, step / f"layer_{layer:02d}-model_{number:02d}-model_states.pt")
    return folder


def checkpoint(
    folder: Path, style: str, ranks: int = 1, sequential: bool = False, **changes: Any
) -> tuple[Path, dict[str, Any], Ranks]:
    """`save` of a random model of ``style``."""
    keys = keys_of(style, **changes)
    model = random_ranks(keys, ranks)
    return save(folder, keys, copy.deepcopy(model), sequential), keys, model


def tokens(count: int = 2, length: int = 40) -> Tensor:
    """Ids[count, length] over the whole vocabulary."""
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(1))
