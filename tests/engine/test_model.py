"""The model that NeoX's keys describe: vocabulary, shapes, initial statistics, loading weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ifguide.engine.arguments import TrainConfig
from ifguide.engine.checks import value_faults
from ifguide.engine.model import build_model, load_huggingface_weights, padded_vocabulary
from ifguide.engine.settings import resolve
from ifguide.errors import InputError, MismatchError
from tests.engine.tiny import MODEL

LLAMA = {
    "norm": "rmsnorm", "rms_norm_epsilon": 1e-5, "activation": "swiglu", "num_attention_heads": 4, "num_kv_heads": 2,
    "rotary_pct": 1.0, "rotary_emb_base": 500000, "gpt_j_residual": False, "use_bias_in_attn_linear": False,
    "use_bias_in_mlp": False, "intermediate_size": 48,
}  # fmt: skip
WIDE = {"hidden_size": 256, "num_attention_heads": 4, "num_layers": 3}


def model_of(**values: Any) -> Any:
    return build_model(resolve(TrainConfig(**{**MODEL, **values})), vocab_size=500, eod=0)


def test_vocabulary_is_padded_as_in_neox() -> None:
    assert [padded_vocabulary(size, 128) for size in (1, 128, 129, 50257)] == [128, 128, 256, 50304]
    assert model_of().config.vocab_size == 512
    assert model_of(make_vocab_size_divisible_by=7).config.vocab_size == 504


@pytest.mark.parametrize(
    ("inner", "residual", "inner_std", "residual_std"),
    [
        ("normal", "scaled_normal", 0.02, 0.02 / math.sqrt(6)),
        ("small_init", "wang_init", math.sqrt(2 / (5 * 256)), 2 / 3 / 16),
        ("xavier_normal", "single_residual_scaled_normal", math.sqrt(2 / (256 + 768)), 0.02 / math.sqrt(3)),
        ("xavier_uniform", "xavier_uniform", math.sqrt(2 / (256 + 768)), math.sqrt(2 / 512)),
    ],
)
def test_initial_statistics(inner: str, residual: str, inner_std: float, residual_std: float) -> None:
    model = model_of(**WIDE, init_method=inner, output_layer_init_method=residual)
    attention = model.gpt_neox.layers[1].attention
    # 5 standard errors of a standard deviation over n draws: std / sqrt(2 n)
    for weight, std in ((attention.query_key_value.weight, inner_std), (attention.dense.weight, residual_std)):
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())
    if inner in ("normal", "small_init"):
        assert model.gpt_neox.embed_in.weight.std().item() == pytest.approx(inner_std, rel=0.02)
    assert not attention.dense.bias.any()
    assert (model.gpt_neox.final_layer_norm.weight == 1).all()


def test_initialisation_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = model_of().state_dict()
    torch.manual_seed(2)
    again, other = model_of().state_dict(), model_of(seed=8).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_keys_reach_the_architecture() -> None:
    model = model_of(no_weight_tying=False, gpt_j_residual=False, intermediate_size=24, use_bias_in_attn_linear=False)
    assert model.lm_head.weight is model.gpt_neox.embed_in.weight
    assert not model.config.use_parallel_residual
    layer = model.gpt_neox.layers[0]
    assert layer.mlp.dense_h_to_4h.out_features == 24
    assert layer.attention.dense.bias is None
    assert layer.attention.rotary_ndims == 4


@pytest.mark.parametrize("untied", [True, False])
def test_weights_of_an_export_are_taken(tmp_path: Path, untied: bool) -> None:
    source, target = model_of(seed=1, no_weight_tying=untied), model_of(seed=2, no_weight_tying=untied)
    source.save_pretrained(tmp_path)
    load_huggingface_weights(target, tmp_path)
    theirs = target.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in source.state_dict().items())


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    model_of().save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match="num_layers 2 there, 3 configured; hidden_size 16 there, 32 configured"):
        load_huggingface_weights(model_of(num_layers=3, hidden_size=32), tmp_path)
    with pytest.raises(MismatchError, match="gpt_j_residual True there, False configured"):
        load_huggingface_weights(model_of(gpt_j_residual=False), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"load: .* cannot be loaded"):
        load_huggingface_weights(model_of(), tmp_path)


def test_a_llama_style_model_is_what_its_keys_say() -> None:
    model = model_of(**LLAMA, init_method="normal", output_layer_init_method="scaled_normal")
    config = model.config
    assert config.model_type == "llama"
    assert (config.num_key_value_heads, config.intermediate_size, config.rms_norm_eps) == (2, 16, 1e-5)
    assert config.rope_parameters["rope_theta"] == 500000
    layer = model.model.layers[0]
    assert layer.self_attn.k_proj.weight.shape == (8, 16) and layer.self_attn.k_proj.bias is None
    assert (layer.input_layernorm.weight == 1).all()
    # the residual outputs by their own rule: 0.02 / sqrt(2 * 2 layers)
    for weight, std in ((layer.mlp.down_proj.weight, 0.01), (layer.mlp.up_proj.weight, 0.02)):
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))


def test_a_llama_style_model_takes_the_weights_of_its_kind_only(tmp_path: Path) -> None:
    source, target = model_of(**LLAMA, seed=1), model_of(**LLAMA, seed=2)
    source.save_pretrained(tmp_path)
    load_huggingface_weights(target, tmp_path)
    tokens = torch.arange(12)[None]
    assert torch.equal(source(tokens).logits, target(tokens).logits)
    with pytest.raises(MismatchError, match="norm rmsnorm there, layernorm configured"):
        load_huggingface_weights(model_of(), tmp_path)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"norm": "rmsnorm"}, "activation: 'gelu': with rmsnorm only gated MLPs"),
        ({**LLAMA, "gpt_j_residual": True}, "gpt_j_residual: true: with rmsnorm"),
        ({**LLAMA, "num_kv_heads": 3}, "num_kv_heads: 3 does not divide num_attention_heads (4)"),
        ({**LLAMA, "hidden_dropout": 0.1}, "hidden_dropout: a Llama-style model"),
        ({"num_kv_heads": 1}, "num_kv_heads: 1: with layernorm grouped attention"),
        ({"activation": "swiglu"}, "activation: 'swiglu': with layernorm a gated MLP"),
        ({"use_bias_in_mlp": False}, "use_bias_in_mlp: false"),
    ],
)
def test_what_no_architecture_is_is_refused(values: dict[str, Any], fault: str) -> None:
    faults = value_faults(TrainConfig(**{**MODEL, **values}), check_files=False)
    assert [line for line in faults if line.startswith(fault)]
