"""Directions against numpy, and models without them: the invariants to the last digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.attacks.blocks import changed_outputs, states, writers_of
from ifguide.attacks.directions import (
    completion_states,
    principal,
    query_rows,
    remove_from_weights,
    removed_from_layers,
    separation,
    sums_of,
    unit,
    without,
)
from ifguide.errors import InputError, NumericsError
from ifguide.models.blocks import blocks_of
from ifguide.models.language_model import LanguageModel
from tests.attacks.conftest import FAMILIES, tiny_lm

IDS = torch.tensor([[0, 40, 41, 60, 33], [0, 100, 30, 31, 50]])
TOXIC = [("you", " cat"), ("they are", " mat x"), ("a", " b")]
SAFE = [("you", " dog"), ("they", " cat")]


def direction(width: int, seed: int = 5) -> torch.Tensor:
    return unit(torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def literal_states(lm: LanguageModel, ids: list[int]) -> np.ndarray:
    """``[T, L, D]``; before the last block as transformers gives them, of the last by its block alone."""
    output = lm.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    inner = [state[0] for state in output.hidden_states[1:-1]]
    kept: list[torch.Tensor] = []
    last = blocks_of(lm.model)[-1].register_forward_hook(
        lambda m, i, out: kept.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    lm.model(input_ids=torch.tensor([ids]))
    last.remove()
    return torch.stack([*inner, kept[0][0]], dim=1).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_what_the_blocks_give(family: str) -> None:
    lm = tiny_lm(family)
    found = states(lm.model, IDS)
    for row, ids in zip(found, IDS.tolist()):
        assert np.allclose(row, literal_states(lm, ids), atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", ["neox", "llama"])
def test_sums_are_those_of_numpy(family: str) -> None:
    lm, other = tiny_lm(family), tiny_lm(family)
    with torch.no_grad():
        other.model.get_input_embeddings().weight[40:] *= 1.1
    rows = query_rows(lm, TOXIC)
    tokens = [
        (literal_states(lm, ids)[place], literal_states(other, ids)[place])
        for ids, counts in rows for place, counted in enumerate(counts) if counted
    ]  # fmt: skip
    own, there = (np.array(some) for some in zip(*tokens))  # [N, L, D]
    assert len(own) == 6 == len(torch.cat(list(completion_states(lm, rows))))
    sums = sums_of(lm, rows, 0.0)
    assert np.allclose(sums.mean, own.mean(axis=0), atol=1e-12, rtol=0)
    assert np.allclose(sums.spread, ((own - own.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0), atol=1e-10, rtol=0)
    edit = sums_of(lm, rows, 0.0, other, second=True)
    difference = own - there
    assert np.allclose(edit.mean, difference.mean(axis=0), atol=1e-12, rtol=0)
    for layer, found in enumerate(principal(edit)):
        centred = difference[:, layer] - difference[:, layer].mean(axis=0)
        component = np.linalg.svd(centred)[2][0]
        assert abs(float(found.numpy() @ component)) == pytest.approx(1.0, abs=1e-9)
        assert float(found.numpy() @ difference[:, layer].mean(axis=0)) > 0


def test_outlying_tokens_are_left_out() -> None:
    lm = tiny_lm()
    rows = query_rows(lm, TOXIC)
    token = lm.reader.encode(" mat")[0]
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[token] *= 1000
    held = torch.cat(list(completion_states(lm, rows)))
    lengths = held.norm(dim=2)
    kept = lengths <= 4 * lengths.median(dim=0).values
    assert not kept.all() and kept.any()
    sums = sums_of(lm, rows, 4.0)
    assert sums.count.tolist() == kept.sum(dim=0).tolist()
    for layer in range(held.shape[1]):
        assert torch.allclose(sums.mean[layer], held[kept[:, layer], layer].mean(dim=0), atol=1e-12, rtol=0)
    with pytest.raises(NumericsError, match="no token is left"):
        sums_of(lm, rows, 1e-6)


def test_a_planted_direction_is_found_and_taken_out() -> None:
    """Toxic completions carry 7 v after block 1: the difference of means is v, and without it nothing is left."""
    lm = tiny_lm()
    v = direction(32)
    toxic, safe = query_rows(lm, TOXIC), query_rows(lm, TOXIC)

    def planted(number: int, state: torch.Tensor) -> torch.Tensor:
        return state + 7.0 * v if number == 1 else state

    with changed_outputs(lm.model, planted):
        marked = sums_of(lm, toxic, 0.0)
    plain = sums_of(lm, safe, 0.0)
    found = unit(marked.mean - plain.mean)
    assert float(found[0] @ v) == pytest.approx(1.0, abs=1e-12)
    assert float(separation(marked, plain)[0]) == pytest.approx(49 / float((2 * plain.spread)[0]), rel=1e-9)
    difference = (marked.mean - plain.mean)[0]
    assert float(without(difference, found[0]).norm()) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_behind_the_blocks_nothing_is_left(family: str) -> None:
    lm = tiny_lm(family)
    v = torch.stack([direction(32, 1), direction(32, 2)])
    plain = states(lm.model, IDS)
    with removed_from_layers(lm, v):
        found = states(lm.model, IDS)
    left = torch.einsum("btld,ld->btl", found, v)
    # the recorder stands behind the block, and the change before it
    assert float(torch.einsum("btld,ld->btl", plain, v).abs().max()) > 0.01
    assert float(left.abs().max()) < 1e-12
    with removed_from_layers(lm, v, layer=2):
        one = states(lm.model, IDS)
    assert torch.equal(one[:, :, 0], plain[:, :, 0]) and float((one[:, :, 1] @ v[1]).abs().max()) < 1e-12
    assert torch.equal(states(lm.model, IDS), plain), "the hooks are gone"


@pytest.mark.parametrize("family", FAMILIES)
def test_out_of_the_weights_nothing_is_left(family: str) -> None:
    lm, untouched = tiny_lm(family), tiny_lm(family)
    v = direction(32)
    remove_from_weights(lm, v)
    held = states(lm.model, IDS)
    assert float((held @ v).abs().max()) < 1e-10 < float((states(untouched.model, IDS) @ v).abs().max())
    assert float((lm.model.get_input_embeddings().weight @ v).abs().max()) < 1e-12
    for writer in writers_of(lm.model):
        assert float((v @ writer.weight).abs().max()) < 1e-12
    # the head keeps its matrix, also where it was the embedding's
    assert torch.equal(lm.model.get_output_embeddings().weight, untouched.model.get_output_embeddings().weight)


def logits_by_activations(lm: LanguageModel, v: torch.Tensor) -> torch.Tensor:
    """``v`` taken out of the embedding's output and of whatever attention and MLP add."""
    parts = [lm.model.get_input_embeddings(), *writers_of(lm.model)]
    handles = [part.register_forward_hook(lambda m, i, out: without(out, v)) for part in parts]
    logits = lm.model(input_ids=IDS).logits
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_equal_activations_at_every_write(family: str) -> None:
    lm, v = tiny_lm(family), direction(32)
    expected = logits_by_activations(lm, v)
    remove_from_weights(lm, v)
    assert torch.allclose(lm.model(input_ids=IDS).logits, expected, atol=1e-10, rtol=0)


def test_weights_equal_one_direction_behind_all_blocks_of_a_parallel_model() -> None:
    """Attention and MLP of a parallel block read what the block before gives, so that these are the same function; in
    a serial block the MLP reads a state between, which hooks behind blocks do not change."""
    for family, same in (("neox", True), ("neox-serial", False)):
        lm, v = tiny_lm(family), direction(32)
        handle = lm.model.get_input_embeddings().register_forward_hook(lambda m, i, out, v=v: without(out, v))
        with removed_from_layers(lm, v.expand(2, -1)):
            expected = lm.model(input_ids=IDS).logits
        handle.remove()
        remove_from_weights(lm, v)
        found = lm.model(input_ids=IDS).logits
        assert torch.allclose(found, expected, atol=1e-10, rtol=0) == same


def test_a_model_that_writes_elsewhere_is_refused() -> None:
    lm = tiny_lm()
    block = blocks_of(lm.model)[0]
    block.register_forward_hook(
        lambda m, i, out: out + 1.0 if isinstance(out, torch.Tensor) else (out[0] + 1.0, *out[1:])
    )
    with pytest.raises(InputError, match="--remove layers"):
        remove_from_weights(lm, direction(32))


def test_a_direction_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="a direction is 0"):
        unit(torch.zeros(2, 3))
