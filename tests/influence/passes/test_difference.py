"""Differences against forward mode and one backward pass per token: right to the order they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.influence.passes.difference import DifferencePass
from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.passes.low_rank import truncate
from ifguide.influence.windows import cut
from ifguide.models.tracked import label_losses, load_model
from tests.influence import reference
from tests.influence.conftest import EOD, WINDOW, load_exact
from tests.influence.reference import random_direction

SMALL = 1e-5


@pytest.fixture
def batch(dataset):
    """All windows at once: unequal, some with a context that has no labels."""
    windows = cut(dataset, EOD, WINDOW, 4)
    return windows.batch(np.arange(len(windows)))


def _error(scoring, exact, batch):
    return float((scoring.scores(batch) - exact).norm() / exact.norm())


def test_equals_one_backward_per_token(model_folders, batch):
    for folder in model_folders.values():
        model = load_exact(folder)
        direction = random_direction(model)
        found = DifferencePass(model, [direction], SMALL).scores(batch)[0]
        reference.track(model)
        for row in (0, 2, len(found) - 1):
            labels, labelled = batch.labels[row], batch.labelled[row]
            losses = reference.losses(model, batch.inputs[row], labels.clamp(min=0))[labelled]
            expected = [reference.dot(direction, reference.gradient(model, loss)) for loss in losses]
            torch.testing.assert_close(
                found[row][labelled], torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5
            )
            assert (found[row][~labelled] == 0).all()


@pytest.mark.parametrize(("one_sided", "order"), [(False, 2), (True, 1)])
def test_error_shrinks_with_the_step_until_rounding(model_folders, batch, one_sided, order):
    for folder in model_folders.values():
        model = load_exact(folder)
        directions = [random_direction(model)]
        exact = ForwardModePass(model, directions).scores(batch)
        errors = [
            _error(DifferencePass(model, directions, step, one_sided), exact, batch) for step in (1e-4, 1e-5, 1e-13)
        ]
        assert errors[0] / errors[1] == pytest.approx(10**order, rel=0.2)
        assert errors[2] > errors[1]


def test_is_the_slope_of_the_loss(model, batch):
    """The same two passes, with the losses of the stock model differenced literally."""
    direction, step = random_direction(model), 1e-5
    found = DifferencePass(model, [direction], step).scores(batch)[0]
    length = sum(float(p.square().sum()) for p in model.tracked_parameters().values()) ** 0.5
    size = step * length / sum(float(matrix.square().sum()) for matrix in direction.values()) ** 0.5
    losses = []
    for sign in (1, -1):
        reference.step(model, direction, sign * size)
        with torch.no_grad():
            logits = model.model(batch.inputs, use_cache=False).logits
        losses.append(label_losses(logits[batch.labelled], batch.labels[batch.labelled]))
        reference.step(model, direction, -sign * size)
    slope = (losses[0] - losses[1]) / (2 * size)
    torch.testing.assert_close(found[batch.labelled], slope, rtol=1e-5, atol=1e-5)


def test_sum_over_tokens_is_the_sequence_gradient(model, dataset):
    direction = random_direction(model)
    batch = cut(dataset, EOD, WINDOW, 4).batch(np.array([0]))
    found = float(DifferencePass(model, [direction], SMALL).scores(batch).sum())
    reference.track(model)
    total = reference.losses(model, batch.inputs[0], batch.labels[0]).sum()
    assert found == pytest.approx(reference.dot(direction, reference.gradient(model, total)), rel=1e-5)


def test_batch_and_padding_do_not_matter(model, dataset, batch):
    windows = cut(dataset, EOD, WINDOW, 4)
    scoring = DifferencePass(model, [random_direction(model)], 1e-4)
    together = scoring.scores(batch)[0]
    for window in range(len(windows)):
        alone = scoring.scores(windows.batch(np.array([window])))[0, 0]
        torch.testing.assert_close(together[window, : len(alone)], alone, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("one_sided", [False, True])
def test_several_directions_equal_single_ones(model, batch, one_sided):
    directions = [random_direction(model, seed) for seed in (1, 2, 3)]
    directions[1] = {name: 1e3 * matrix for name, matrix in directions[1].items()}
    together = DifferencePass(model, directions, 1e-3, one_sided).scores(batch)
    for direction, scores in zip(directions, together, strict=True):
        alone = DifferencePass(model, [direction], 1e-3, one_sided).scores(batch)[0]
        torch.testing.assert_close(scores, alone, rtol=1e-12, atol=1e-12)


def test_one_sided_directions_share_the_unmoved_pass(model, batch, monkeypatch):
    passes = []
    original = type(model).hidden
    monkeypatch.setattr(type(model), "hidden", lambda *a, **k: passes.append(1) or original(*a, **k))
    directions = [random_direction(model, seed) for seed in (1, 2, 3)]
    DifferencePass(model, directions, 1e-3, one_sided=True).scores(batch)
    assert len(passes) == 4


def test_low_rank_directions(model, batch):
    low = truncate(random_direction(model), 3)[0]
    dense = {name: matrix.dense() for name, matrix in low.items()}
    found = DifferencePass(model, [low, random_direction(model)], 1e-3).scores(batch)
    torch.testing.assert_close(found[:1], DifferencePass(model, [dense], 1e-3).scores(batch), rtol=1e-9, atol=1e-9)


def test_a_direction_of_zeros_scores_zero(model, batch):
    zeros = {name: 0 * matrix for name, matrix in random_direction(model).items()}
    assert (DifferencePass(model, [zeros], 1e-3).scores(batch) == 0).all()


def test_the_model_is_left_as_it_was(model, batch):
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    attention = model.model.config._attn_implementation
    DifferencePass(model, [random_direction(model)], 1e-1).scores(batch)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.state_dict().items())
    assert model.model.config._attn_implementation == attention


def test_the_first_bad_layer_is_named(model, batch):
    scoring = DifferencePass(model, [random_direction(model)], 1e-3)
    assert scoring.first_bad_layer(batch) == "the head"
    norm = next(m for name, m in model.model.named_modules() if name.endswith("1.post_attention_layernorm"))
    norm.weight[0] = float("nan")
    assert scoring.first_bad_layer(batch) == next(name for name in model.tracked if ".1.mlp." in name)


def test_few_digits_are_refused(model_folders, model):
    half = load_model(model_folders["neox"], dtype=torch.bfloat16, device="cpu")
    with pytest.raises(InputError, match="bfloat16 rounds too much; use --method jvp") as error:
        DifferencePass(half, [random_direction(half)], 1e-3)
    assert "\n" not in str(error.value)
    for step in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="positive"):
            DifferencePass(model, [random_direction(model)], step)


def test_the_precision_of_matmuls_is_known(model_folders, model):
    single = load_model(model_folders["neox"], device="cpu")
    before = torch.get_float32_matmul_precision()
    try:
        assert DifferencePass(single, [random_direction(single)], 1e-3).precision == "float32"
        torch.set_float32_matmul_precision("high")
        assert DifferencePass(single, [random_direction(single)], 1e-3).precision == "tf32"
        assert DifferencePass(model, [random_direction(model)], 1e-3).precision == "float32"
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(InputError, match="TF32 matmuls, torch is set to"):
            DifferencePass(single, [random_direction(single)], 1e-3)
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_of_the_caller_does_not_reach_the_passes(model_folders, batch):
    single = load_model(model_folders["neox"], device="cpu")
    scoring = DifferencePass(single, [random_direction(single)], 1e-2)
    expected = scoring.scores(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scoring.scores(batch), expected)
