"""M4 against its formula in fp64, its gradients against finite differences, and its bit-exact limits."""

import math

import pytest
import torch

from ifguide.objectives.penalised import (
    FORMS,
    penalised_loss,
    penalised_token_loss,
    penalty_lambda_at,
    penalty_statistics,
    reported,
)


def literal_m4(ce, strength, mask, form, lam, clip):
    numerator = denominator = 0.0
    for loss, s, m in zip(ce.tolist(), strength.tolist(), mask.tolist()):
        f = {
            "ascent": lambda x: -x,
            "clipped": lambda x: -min(x, clip),
            "unlikelihood": lambda x: -math.log(1 - math.exp(-max(x, 1e-6))),
        }[form](loss)
        numerator += m * ((1 - s) * loss + s * lam * f)
        denominator += m
    return numerator / denominator


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    ce = torch.rand(64, generator=generator, dtype=torch.float64) * 12 + 1e-3
    strength = torch.randint(0, 256, (64,), generator=generator).double() / 255 * (torch.arange(64) % 3 == 0)
    mask = (torch.arange(64) % 7 != 0).double()
    return ce, strength, mask


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lam", [0.3, 1.0, -1.0])
def test_equals_the_formula(batch, form, lam):
    ce, strength, mask = batch
    ours = penalised_loss(ce, strength, mask, form=form, penalty_lambda=lam, clip=6.0)
    assert ours.item() == pytest.approx(literal_m4(ce, strength, mask, form, lam, 6.0), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gradients(batch, form):
    ce, strength, mask = batch
    assert torch.autograd.gradcheck(
        lambda x: penalised_loss(x, strength, mask, form=form, penalty_lambda=0.7, clip=6.0), ce.requires_grad_()
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_selected_tokens_it_is_the_stock_loss_bit_for_bit(form, dtype):
    ce = (torch.rand(8, 16, generator=torch.Generator().manual_seed(1)) * 9).to(dtype).requires_grad_()
    ones, zeros = torch.ones(8, 16), torch.zeros(8, 16)
    stock = (ce * ones).sum() / ones.sum()
    ours = penalised_loss(ce, zeros, ones, form=form, penalty_lambda=3.0, clip=5.0)
    assert torch.equal(ours, stock)
    expected, actual = torch.autograd.grad(stock, ce)[0], torch.autograd.grad(ours, ce)[0]
    assert torch.equal(expected, actual)


def test_lambda_minus_one_with_ascent_recomposes_the_stock_loss(batch):
    ce, strength, _ = batch
    binary = (strength > 0).double()
    assert torch.equal(penalised_token_loss(ce, binary, penalty_lambda=-1.0), ce)


def test_unlikelihood_is_finite_at_both_ends():
    ce = torch.tensor([0.0, 1e-9, 0.69314718, 40.0, 200.0], requires_grad=True)
    loss = penalised_token_loss(ce, torch.ones(5), form="unlikelihood")
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(ce.grad).all()
    assert loss[0].item() == pytest.approx(13.8155, abs=1e-3)


def test_warmup():
    assert [penalty_lambda_at(t, 2.0, 4) for t in (1, 2, 4, 9)] == [0.5, 1.0, 2.0, 2.0]
    assert penalty_lambda_at(1, 2.0) == 2.0


def test_statistics_add_up_over_micro_batches(batch):
    ce, strength, mask = batch
    token_loss = penalised_token_loss(ce, strength)
    whole = penalty_statistics(ce, strength, mask, token_loss)
    halves = sum(penalty_statistics(*(x[i::2] for x in (ce, strength, mask, token_loss))) for i in (0, 1))
    torch.testing.assert_close(whole, halves)
    report = reported(whole)
    clean = (mask > 0) & (strength == 0)
    assert report["lm_loss"] == pytest.approx(ce[clean].mean().item())
    assert report["objective"] == pytest.approx(penalised_loss(ce, strength, mask).item())
    nothing = penalty_statistics(ce, strength * 0, mask, ce)
    assert "penalty_ce" not in reported(nothing) and reported(nothing)["penalty_fraction"] == 0


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="form"):
        penalised_token_loss(torch.ones(1), torch.ones(1), form="square")
    with pytest.raises(ValueError, match="clip"):
        penalised_token_loss(torch.ones(1), torch.ones(1), form="clipped")
