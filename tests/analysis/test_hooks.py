"""What passes through a model, against what transformers gives and what follows from its parts."""

from __future__ import annotations

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from ifguide.analysis.hooks import anatomy_of, passages, scaled_keys, steered, watching
from ifguide.errors import InputError, NumericsError
from tests.support.insides import FAMILIES, WIDTH, small_neox, subject
from tests.support.tiny_models import as_loaded, byte_tokenizer

TEXTS = [[0, 5, 9, 200], [0, 7], [0, 1, 2, 3, 4, 5, 6, 7, 8]]
family = pytest.mark.parametrize("family", FAMILIES)


@family
def test_residuals_are_those_of_transformers_but_for_the_last_which_is_not_normed(family: str) -> None:
    model = subject(FAMILIES[family]())
    for index, passage in passages(model.lm, model.anatomy, TEXTS):
        ids = torch.tensor([TEXTS[index]])
        with torch.no_grad():
            output = model.lm.model(input_ids=ids, output_hidden_states=True)
        assert len(output.hidden_states) == len(passage.residuals) == 4
        for ours, theirs in zip(passage.residuals[:-1], output.hidden_states[:-1]):
            torch.testing.assert_close(ours, theirs[0], rtol=0, atol=1e-12)
        last = output.hidden_states[-1][0]
        torch.testing.assert_close(model.anatomy.norm(passage.residuals[-1]), last, rtol=0, atol=1e-12)
        # norming it once more is the trap
        assert float((model.anatomy.norm(last) - last).detach().abs().max()) > 0.1
        torch.testing.assert_close(model.anatomy.said(passage.residuals[-1]), output.logits[0], rtol=0, atol=1e-12)


@family
def test_a_text_is_read_as_alone_whatever_stands_beside_it(family: str) -> None:
    model = subject(FAMILIES[family]())
    together = dict(passages(model.lm, model.anatomy, TEXTS, neurons=True))
    assert sorted(together) == [0, 1, 2]
    for index, ids in enumerate(TEXTS):
        ((_, alone),) = passages(model.lm, model.anatomy, [ids], neurons=True)
        torch.testing.assert_close(together[index].residuals, alone.residuals, rtol=0, atol=1e-12)
        torch.testing.assert_close(together[index].attention, alone.attention, rtol=0, atol=1e-12)
        for ours, theirs in zip(together[index].activations, alone.activations, strict=True):
            assert ours.shape == (len(ids), 32)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@family
def test_keys_and_values_are_what_the_mlp_reads_and_writes(family: str) -> None:
    model = subject(FAMILIES[family]())
    ((_, passage),) = passages(model.lm, model.anatomy, TEXTS[:1], neurons=True)
    for block, m in zip(model.anatomy.blocks, passage.activations, strict=True):
        assert block.keys.shape == block.values.shape == (32, WIDTH)
        written = torch.stack([sum(m[t, i] * block.values[i] for i in range(32)) for t in range(len(m))])
        bias = 0.0 if block.bias is None else block.bias
        torch.testing.assert_close(block.down(m), written + bias, rtol=0, atol=1e-12)
        read = torch.randn(WIDTH, dtype=torch.float64)
        plain = block.up(read) - (0.0 if getattr(block.up, "bias", None) is None else block.up.bias)
        torch.testing.assert_close(plain, torch.stack([block.keys[i] @ read for i in range(32)]), rtol=0, atol=1e-12)


@family
def test_what_the_head_reads_is_pushed_and_nothing_else(family: str) -> None:
    model = subject(FAMILIES[family]())
    ids, v = torch.tensor([TEXTS[2]]), torch.randn(WIDTH, dtype=torch.float64)
    with torch.no_grad():
        with watching(model.anatomy) as plain:
            before = model.lm.model(input_ids=ids, use_cache=True)
        with steered(model.anatomy, v, 1.5), watching(model.anatomy) as seen:
            after = model.lm.model(input_ids=ids, use_cache=True)
        expected = model.anatomy.said(plain.residuals[-1] + 1.5 * v)
    assert torch.equal(after.logits, expected)
    assert all(torch.equal(one, other) for one, other in zip(plain.residuals, seen.residuals, strict=True))
    cached = [(layer.keys, layer.values) for layer in before.past_key_values.layers]
    for (keys, values), layer in zip(cached, after.past_key_values.layers, strict=True):
        assert torch.equal(keys, layer.keys) and torch.equal(values, layer.values)
    with torch.no_grad():
        with steered(model.anatomy, v, 0.0):
            assert torch.equal(model.lm.model(input_ids=ids).logits, before.logits)
        assert torch.equal(model.lm.model(input_ids=ids).logits, before.logits), "the hook is gone again"


@family
def test_a_scaled_key_scales_what_it_reads_and_comes_back(family: str) -> None:
    model = subject(FAMILIES[family]())
    which = [(0, 3), (2, 31)]
    weights = {name: value.clone() for name, value in model.lm.model.state_dict().items()}
    block = model.anatomy.blocks[0]
    read = torch.randn(WIDTH, dtype=torch.float64)
    with torch.no_grad():
        before = block.up(read)
        with scaled_keys(model.anatomy, which, 10.0):
            after = block.up(read)
    bias = torch.zeros(32, dtype=torch.float64) if getattr(block.up, "bias", None) is None else block.up.bias
    for neuron in range(32):
        factor = 10.0 if neuron == 3 else 1.0
        assert after[neuron].item() == pytest.approx((factor * (before[neuron] - bias[neuron]) + bias[neuron]).item())
    changed = [name for name, value in model.lm.model.state_dict().items() if not torch.equal(value, weights[name])]
    assert changed == []


def test_a_gated_neuron_is_scaled_as_it_is() -> None:
    """m_i = act(gate_i) up_i: the gate is left alone, so m_i is exactly ten times what it was."""
    model = subject(FAMILIES["llama"]())
    ids = torch.tensor([TEXTS[0]])
    with torch.no_grad():
        with watching(model.anatomy, neurons=True) as before:
            model.lm.model(input_ids=ids)
        with scaled_keys(model.anatomy, [(0, 4)], 10.0), watching(model.anatomy, neurons=True) as after:
            model.lm.model(input_ids=ids)
    factor = torch.ones(32, dtype=torch.float64)
    factor[4] = 10.0
    torch.testing.assert_close(after.activations[0], before.activations[0] * factor, rtol=1e-13, atol=0)


def test_logits_that_are_scaled_are_refused() -> None:
    settings = {
        "vocab_size": 288, "hidden_size": WIDTH, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 32, "num_hidden_layers": 2, "logits_scaling": 3.0,
    }  # fmt: skip
    lm = as_loaded(GraniteForCausalLM(GraniteConfig(**settings)).eval(), byte_tokenizer())
    with pytest.raises(InputError, match=r"its logits are not head\(norm\(last block\)\)"):
        anatomy_of(lm)


def test_what_is_not_finite_is_named() -> None:
    model = small_neox()
    model.gpt_neox.embed_in.weight.data[9] = float("nan")
    one = subject(model)
    with pytest.raises(NumericsError, match=r"at text 1 is not finite"):
        list(passages(one.lm, one.anatomy, [[0, 3], [0, 9]]))
