"""Neurons: what a change is made of, to the last digit; a planted neuron, found, read and switched on again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.analysis import neurons
from ifguide.analysis.decomposition import change, parts_of
from ifguide.analysis.hooks import Anatomy, Block
from ifguide.analysis.inputs import Text
from ifguide.analysis.options import NeuronOptions, SpeechOptions
from ifguide.analysis.ranking import matched_random, rank, singular, tokens_said, values_of
from ifguide.errors import InputError
from tests.support.insides import (
    FAMILIES,
    CountsZ,
    free_direction,
    make_bench,
    plain_neox,
    plant,
    small_neox,
    subject,
    token,
)

TEXTS = [Text((0, 5, 6, 7, 8), (False, False, True, True, True)), Text((0, 9, 3), (False, True, True))]
W = np.random.default_rng(0).normal(size=16)
CHOSEN = [(2, 5), (0, 31), (2, 0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_are_the_whole_and_each_is_what_it_says(family: str) -> None:
    model = subject(FAMILIES[family]())
    found = parts_of(model, TEXTS, W, CHOSEN)
    assert found.remainder < 1e-12
    w = torch.from_numpy(W)
    anatomy = model.anatomy
    for number, text in enumerate(TEXTS):
        seen: dict[str, Any] = {}
        handles = [
            anatomy.blocks[-1].module.register_forward_hook(lambda _, __, out, s=seen: s.update(last=out)),
            *(
                block.down.register_forward_pre_hook(lambda _, args, s=seen, at=at: s.update({f"m{at}": args[0]}))
                for at, block in enumerate(anatomy.blocks)
            ),
        ]
        with torch.no_grad():
            model.lm.model(input_ids=torch.tensor([text.tokens]))
        for handle in handles:
            handle.remove()
        last = seen["last"][0] if isinstance(seen["last"], tuple) else seen["last"]
        targets = [place for place, is_target in enumerate(text.is_target) if is_target]
        total = sum(float(last[0, place] @ w) for place in targets) / len(targets)
        assert found.total[number] == pytest.approx(total, abs=1e-12)
        chosen = 0.0
        for block, neuron in CHOSEN:
            m = sum(float(seen[f"m{block}"][0, place, neuron]) for place in targets) / len(targets)
            chosen += m * float(anatomy.blocks[block].values[neuron] @ w)
        assert found.chosen[number] == pytest.approx(chosen, abs=1e-12)
    sums = [float(one.sum()) for one in found.neurons]
    np.testing.assert_allclose(sums, found.mlp.mean(axis=0), atol=1e-12)


def test_a_change_is_the_sum_of_the_changes_of_its_parts() -> None:
    base, other = subject(small_neox()), subject(small_neox(initializer_range=0.2))
    before, after = (parts_of(one, TEXTS, W, CHOSEN) for one in (base, other))
    found = change(before, after, 200, 0)
    parts = sum(found[name]["value"] for name in ("embedding", "attention", "neurons", "bias"))
    assert found["total"]["value"] == pytest.approx(parts, abs=1e-12) and abs(found["total"]["value"]) > 0.01
    if found["is_sure"]:
        ratio = found["toxic neurons"]["value"] / found["total"]["value"]
        assert found["share"]["value"] == pytest.approx(ratio, rel=1e-12)
    itself = change(before, before, 200, 0)
    assert itself["total"]["value"] == 0 and itself["share"] is None and not itself["is_sure"]


def test_blocks_that_norm_what_they_add_are_refused() -> None:
    """As Gemma 2's: the attention that a hook sees is not what reaches the residual stream."""
    model = subject(small_neox())
    anatomy = model.anatomy
    odd = Anatomy(
        (*anatomy.blocks[:-1], Block(anatomy.blocks[-1].module, anatomy.blocks[0].attention,
                                     anatomy.blocks[-1].up, anatomy.blocks[-1].down)),
        anatomy.norm, anatomy.head,
    )  # fmt: skip
    model.__dict__["anatomy"] = odd
    with pytest.raises(InputError, match="do not add up to what its last block gives"):
        parts_of(model, TEXTS, W, CHOSEN)


def test_the_ranking_is_by_cosine_over_all_blocks() -> None:
    model = subject(small_neox())
    literal = []
    for block, one in enumerate(model.anatomy.blocks):
        for neuron in range(32):
            v = one.values[neuron].numpy()
            literal.append((float(v @ W / np.sqrt(v @ v) / np.sqrt(W @ W)), (block, neuron)))
    literal.sort(key=lambda item: -item[0])
    found = rank(model.anatomy, W, 7)
    assert found.neurons == [where for _, where in literal[:7]]
    np.testing.assert_allclose(found.cosines, [value for value, _ in literal[:7]], atol=1e-12)


def test_singular_vectors_are_those_of_the_unit_vectors() -> None:
    values = torch.randn(6, 16, dtype=torch.float64) + 1.0
    strengths, directions = singular(values)
    unit = values / values.norm(dim=1, keepdim=True)
    gram = unit.T @ unit
    for strength, direction in zip(strengths, directions):
        torch.testing.assert_close(gram @ direction, strength**2 * direction, rtol=0, atol=1e-9)
    assert float(directions[0] @ unit.mean(dim=0)) > 0
    assert sum(strength**2 for strength in strengths) == pytest.approx(6.0)


def test_random_neurons_are_others_of_the_same_blocks() -> None:
    model = subject(small_neox())
    found = matched_random(model.anatomy, CHOSEN, np.random.default_rng(0))
    assert sorted(block for block, _ in found) == [0, 2, 2] and not set(found) & set(CHOSEN)
    assert len(set(found)) == 3


def planted(strength: float, gain: float = 1.0) -> Any:
    """Neuron 7 of the second block writes z wherever ``!`` was just read, as strongly as its key is long."""
    model = plain_neox()
    plant(model, 1, 7, free_direction(model, "z"), strength)
    mlp = model.gpt_neox.layers[1].mlp
    mlp.dense_h_to_4h.bias.data[7] = 0.0
    norm = model.gpt_neox.layers[1].post_attention_layernorm
    norm.weight.data.fill_(1.0)
    with torch.no_grad():
        read = norm(model.gpt_neox.embed_in.weight[token("!")])
    mlp.dense_h_to_4h.weight.data[7] = gain * read / (read @ read)
    return model


def test_a_planted_neuron_is_found_explains_the_change_and_comes_back(tmp_path: Path) -> None:
    """``dampened`` was trained to leave the value as it is and to read less: its key scaled is the base's again."""
    models = {"base": planted(2.0, gain=8.0), "dampened": planted(2.0, gain=0.04)}
    toxic, safe = ([f"{'ghijkl'[n % 6]}{letter}" for n in range(24)] for letter in "!.")
    bench = make_bench(
        tmp_path, models, toxic, safe, neuron=NeuronOptions(neurons=1, unalign=1, unalign_factor=200.0),
        speech=SpeechOptions(samples=2, max_new_tokens=1), prompts=None,
    )  # fmt: skip
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a!"}\n{"prompt": "b!"}\n{"prompt": "c!"}\n')
    object.__setattr__(bench.asked, "prompts", str(tmp_path / "prompts.jsonl"))
    bench.__dict__["scorer"] = CountsZ()
    found = neurons.analyse(bench)
    (row,) = found["toxic_set"]
    assert (row["layer"], row["neuron"]) == (2, 7) and row["says"][0] == "z"
    assert found["changes"]["dampened"]["share"]["value"] == pytest.approx(1.0, abs=1e-9)
    assert found["changes"]["dampened"]["remainder"] < 1e-12
    assert found["cosine_with_base"]["dampened"] == pytest.approx([1.0])
    assert found["activations"]["base"]["dampened"]["texts"] == 3
    unalign = found["unalign"]["dampened"]
    assert unalign["as it is"]["emt"]["value"] < 0.5 and unalign["toxic keys scaled"]["emt"]["value"] == 1.0
    assert unalign["random keys scaled"]["emt"]["from_as_is"]["value"] == 0.0
    assert "explain 1 [1, 1] of it" in found["findings"][1]["verdict"][0]
    assert "EMT changes by" in found["findings"][2]["verdict"][1]


def test_tokens_are_those_of_the_largest_products() -> None:
    model = subject(small_neox())
    vectors = values_of(model.anatomy, CHOSEN)
    head = model.lm.model.get_output_embeddings().weight
    for vector, said in zip(vectors, tokens_said(model.lm, model.anatomy, vectors, 3)):
        products = [((head[index] @ vector).item(), index) for index in range(model.lm.vocab_size)]
        best = [index for _, index in sorted(products, reverse=True)[:3]]
        assert said == [model.lm.reader.token_bytes(index).decode("utf-8", "replace") for index in best]
