from __future__ import annotations

from typing import Any

import pytest

from ifguide.architectures.architecture import from_neox_keys, neox_faults, to_neox_keys
from ifguide.errors import ConfigError
from tests.checkpoints.tiny import STYLES, VOCABULARY, architecture_of, keys_of


def faults_of(keys: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        from_neox_keys(keys, 48, VOCABULARY)
    return error.value.faults


@pytest.mark.parametrize("style", STYLES)
def test_keys_describe_the_architecture_they_came_from(style: str) -> None:
    architecture = architecture_of(keys_of(style))
    keys = to_neox_keys(architecture)
    assert from_neox_keys(keys, architecture.mlp_width, VOCABULARY) == architecture
    assert neox_faults(architecture) == []


def test_intermediate_size_gives_neox_the_width() -> None:
    """NeoX: a gated MLP takes int(intermediate_size * 2 / 3) for both halves."""
    for width in (1, 24, 8192, 11008, 14336, 28672):
        architecture = from_neox_keys(keys_of("llama grouped"), width, VOCABULARY)
        halves = int(to_neox_keys(architecture)["intermediate_size"] * 2 / 3)
        assert (halves, halves // 2) == (2 * width, width)


def test_defaults_are_those_of_neox() -> None:
    keys = {"num_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "max_position_embeddings": 4}
    architecture = from_neox_keys({**keys, "pos_emb": "rotary"}, 32, 128)
    assert (architecture.norm, architecture.norm_epsilon, architecture.activation) == ("layernorm", 1e-5, "gelu")
    assert (architecture.rotary_pct, architecture.rotary_base, architecture.num_kv_heads) == (1.0, 10000, 2)
    assert architecture.tied_embeddings and architecture.attention_bias and architecture.mlp_bias
    assert not architecture.parallel_residual and not architecture.tanh_gelu
    assert faults_of(keys)[0].startswith("pos_emb: 'learned': only rotary")


def test_all_that_cannot_be_represented_is_said_at_once() -> None:
    keys = keys_of(
        "pythia", pos_emb="alibi", use_qk_layernorm=True, moe_num_experts=8, use_mup=True, te_mha=True,
        attention_config=[[["flash", "local", "gmlp"], 1]], sliding_window_width=16, train_impl="rm",
        soft_prompt_tuning={"enabled": True}, output_layer_parallelism="row",
    )  # fmt: skip
    named = {fault.split(":")[0] for fault in faults_of(keys)}
    assert named == {
        "pos_emb", "use_qk_layernorm", "moe_num_experts", "use_mup", "te_mha", "attention_config",
        "sliding_window_width", "train_impl", "soft_prompt_tuning", "output_layer_parallelism",
    }  # fmt: skip


def test_missing_keys_wrong_types_and_numbers_read_as_text() -> None:
    keys = keys_of("pythia", hidden_size="32", rotary_pct=True, layernorm_epsilon="1e-5", num_attention_heads=5)
    del keys["num_layers"]
    assert faults_of(keys) == [
        "num_layers: required",
        "hidden_size: expected int, got '32'",
        "layernorm_epsilon: YAML reads 1e-5 as text, not as a number; write 1.0e-5",
        "rotary_pct: expected float, got True",
    ]
    assert faults_of(keys_of("llama grouped", num_attention_heads=5, num_kv_heads=2)) == [
        "hidden_size: 32 is not a multiple of num_attention_heads (5)",
        "num_kv_heads: 2 does not divide num_attention_heads (5)",
    ]


def test_flash_attention_is_the_same_mathematics() -> None:
    keys = keys_of("pythia", attention_config=[[["flash"], 2]])
    assert architecture_of(keys) == architecture_of(keys_of("pythia"))


def test_what_neox_has_no_key_for() -> None:
    architecture = from_neox_keys(keys_of("pythia", rotary_emb_base=10000), 47, VOCABULARY)
    assert neox_faults(architecture) == ["intermediate_size 47: NeoX rounds it up to an even number"]
