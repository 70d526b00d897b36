"""(M2) against one backward pass per token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.passes.low_rank import truncate
from ifguide.influence.windows import cut
from ifguide.models.tracked import load_model
from tests.influence import reference
from tests.influence.conftest import ARCHITECTURES, EOD, WINDOW, load_exact
from tests.influence.reference import random_direction

EXACT = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture
def windows(dataset):
    return cut(dataset, EOD, WINDOW, 4)


def _batch(windows, which):
    return windows.batch(np.array(which))


def _scores(model, direction, windows, which):
    """Flat scores of the windows, in the order of `places`."""
    batch = _batch(windows, which)
    return ForwardModePass(model, [direction]).scores(batch)[0][batch.labelled]


def _one_backward_per_token(model, direction, windows, which):
    """The same, by the stock model with eager attention."""
    reference.track(model)
    expected = []
    with reference.eager_attention(model):
        for window in which:
            batch = _batch(windows, [window])
            losses = reference.losses(model, batch.inputs[0], batch.labels[0].clamp(min=0))[batch.labelled[0]]
            expected += [reference.dot(direction, reference.gradient(model, loss)) for loss in losses]
    return torch.tensor(expected, dtype=torch.float64)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_one_backward_per_token(model_folders, windows, architecture):
    """Documents of unequal length in one batch."""
    model = load_exact(model_folders[architecture])
    direction, which = random_direction(model), [0, 2, len(windows) - 1]
    found = _scores(model, direction, windows, which)
    torch.testing.assert_close(found, _one_backward_per_token(model, direction, windows, which), **EXACT)


def test_the_sliding_window_is_shorter_than_the_documents(model_folders, windows):
    """Or the test above would prove nothing: without its window Mistral gives other scores."""
    model = load_exact(model_folders["mistral"])
    direction = random_direction(model)
    narrow = _scores(model, direction, windows, [1])
    model.model.config.sliding_window = None
    model.model.config.layer_types = None
    assert not torch.allclose(_scores(model, direction, windows, [1]), narrow, rtol=1e-2)


def test_sum_over_tokens_is_the_sequence_gradient(model, windows):
    direction = random_direction(model)
    reference.track(model)
    batch = _batch(windows, [0])
    total = reference.losses(model, batch.inputs[0], batch.labels[0]).sum()
    expected = reference.dot(direction, reference.gradient(model, total))
    assert float(_scores(model, direction, windows, [0]).sum()) == pytest.approx(expected, rel=1e-8)


def test_batch_and_padding_do_not_matter(model, windows):
    direction = random_direction(model)
    alone = torch.cat([_scores(model, direction, windows, [window]) for window in range(len(windows))])
    together = _scores(model, direction, windows, range(len(windows)))
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)


def test_other_documents_do_not_matter(model, windows):
    direction = random_direction(model)
    pair = _scores(model, direction, windows, [0, 5])
    torch.testing.assert_close(
        pair[: windows.scored[0]], _scores(model, direction, windows, [0]), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rank", [None, 3])
def test_several_directions_are_their_own_passes(model_folders, windows, architecture, rank):
    model = load_exact(model_folders[architecture])
    directions = [random_direction(model, seed) for seed in range(3)]
    if rank:
        directions = [truncate(direction, rank)[0] for direction in directions]
    batch = _batch(windows, range(4))
    together = ForwardModePass(model, directions).scores(batch)
    alone = torch.cat([ForwardModePass(model, [direction]).scores(batch) for direction in directions])
    torch.testing.assert_close(together, alone, **EXACT)
    assert together.shape == (3, *batch.labels.shape)
    assert (together[:, ~batch.labelled] == 0).all()


def test_directions_share_the_unperturbed_pass(model, windows):
    """K directions cost P + K D, with P the products of the plain model, its head and the head's gradient."""
    directions, batch = [random_direction(model, seed) for seed in range(3)], _batch(windows, [0, 1])

    def cost(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops()

    one, two, three = (cost(lambda k=k: ForwardModePass(model, directions[:k]).scores(batch)) for k in (1, 2, 3))
    layers = sum(layer.weight.numel() for layer in model.tracked.values())
    head = model.head.weight.numel()
    shared = 2 * batch.labels.numel() * layers + 4 * int(batch.labelled.sum()) * head
    assert three - two == two - one < one - shared
    assert 2 * one - two >= shared


@pytest.mark.parametrize("rank", [1, 5])
def test_low_rank_is_the_truncatedrandom_direction(model, windows, rank):
    factors, _ = truncate(random_direction(model), rank)
    dense = {name: matrix.dense() for name, matrix in factors.items()}
    torch.testing.assert_close(
        _scores(model, factors, windows, [0, 1]), _scores(model, dense, windows, [0, 1]), **EXACT
    )


@pytest.mark.parametrize("pattern", [r"mlp|v_proj", r"q_proj", r"k_proj", r"layers\.1\.", r"layers\.0\.mlp"])
def test_a_subset_of_layers(model_folders, windows, pattern):
    """Attention must cope with queries, keys or values that have no tangent."""
    full = load_exact(model_folders["llama"])
    part = load_exact(model_folders["llama"], pattern=pattern)
    direction = random_direction(full)
    zeroed = {name: matrix if name in part.tracked else 0 * matrix for name, matrix in direction.items()}
    kept = {name: direction[name] for name in part.tracked}
    expected = _scores(full, zeroed, windows, [1])
    torch.testing.assert_close(_scores(part, kept, windows, [1]), expected, rtol=1e-9, atol=1e-11)
    batch = _batch(windows, [1])
    both = ForwardModePass(part, [kept, kept]).scores(batch)[:, batch.labelled]
    torch.testing.assert_close(both, expected.expand(2, -1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("architecture", ["neox", "qwen2"])
def test_bfloat16_is_close(model_folders, windows, architecture):
    half, exact = load_model(model_folders[architecture], dtype=torch.bfloat16), load_exact(model_folders[architecture])
    direction, batch = random_direction(exact), _batch(windows, range(len(windows)))
    for factors in (direction, truncate(direction, 4)[0]):
        rough, expected = (ForwardModePass(m, [factors]).scores(batch) for m in (half, exact))
        assert rough.dtype == torch.float32
        found = torch.stack([rough[0][batch.labelled].double(), expected[0][batch.labelled]])
        assert float(torch.corrcoef(found)[0, 1]) > 0.99


def test_the_model_is_left_as_it_was(model, windows, monkeypatch):
    run, batch = ForwardModePass(model, [random_direction(model)]), _batch(windows, [0])
    plain = model.hidden(batch.inputs)
    before = model.model.config._attn_implementation
    layer = list(model.tracked.values())[3]
    handle = layer.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.scores(batch)
    handle.remove()
    run.scores(batch)
    assert model.model.config._attn_implementation == before
    assert not any("forward" in module.__dict__ for module in model.model.modules())
    torch.testing.assert_close(model.hidden(batch.inputs), plain, rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_bad_layer_is_named(model, windows, count):
    directions = [random_direction(model, seed) for seed in range(count)]
    name = list(model.tracked)[5]
    directions[-1][name][0, 0] = float("nan")
    assert ForwardModePass(model, directions).first_bad_layer(_batch(windows, [0])) == name
