"""The maps are found by norm and by name, and describe the very tensors that transformers makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ifguide.architectures.gpt_neox import GPTNeoX
from ifguide.architectures.llama import Llama
from ifguide.architectures.registry import family_named, family_of, huggingface_config, huggingface_shapes
from ifguide.errors import InputError
from tests.checkpoints.tiny import STYLES, architecture_of, keys_of


def test_the_norm_decides_the_family() -> None:
    assert isinstance(family_of(architecture_of(keys_of("pythia"))), GPTNeoX)
    assert isinstance(family_of(architecture_of(keys_of("llama grouped"))), Llama)
    with pytest.raises(InputError, match="norm: 'scalenorm': only layernorm and rmsnorm"):
        family_of(replace(architecture_of(keys_of("pythia")), norm="scalenorm"))


def test_a_family_has_one_name() -> None:
    for family in (GPTNeoX, Llama):
        assert isinstance(family_named(family.model_type), family)
    with pytest.raises(InputError, match=r"model_type 'gpt2' is not supported; .* of gpt_neox and llama models"):
        family_named("gpt2")


@pytest.mark.parametrize("style", STYLES)
def test_shapes_are_those_of_the_model_that_the_configuration_describes(style: str) -> None:
    """Every parameter, and no other; without any weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    architecture = architecture_of(keys_of(style))
    family = family_of(architecture)
    if faults := family.faults(architecture):
        pytest.skip(f"no Hugging Face model computes this: {faults[0]}")
    entries = huggingface_config(family, architecture, torch.float32, {})
    assert entries["bos_token_id"] is None and entries["eos_token_id"] is None
    kind = entries.pop("model_type")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **entries))
    expected = {name: tuple(value.shape) for name, value in model.named_parameters()}
    if kind == "gpt_neox" and "lm_head.weight" in expected:  # transformers 5 renames it in memory
        expected["embed_out.weight"] = expected.pop("lm_head.weight")
    assert huggingface_shapes(family, architecture) == expected
