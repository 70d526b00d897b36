"""The discriminator alone: reversal, what cannot be learned, and two classes that meet or part."""

from __future__ import annotations

import math

import pytest
import torch

from ifguide.objectives.discriminator import (
    Discriminator,
    DiscriminatorTraining,
    GradientReversal,
    adversarial_loss,
)


def test_reversal_is_the_identity_forward() -> None:
    hidden = torch.randn(4, 3, requires_grad=True)
    out = GradientReversal.apply(hidden, 0.7)
    assert torch.equal(out, hidden)
    (gradient,) = torch.autograd.grad((out * torch.arange(12.0).view(4, 3)).sum(), hidden)
    assert torch.equal(gradient, -0.7 * torch.arange(12.0).view(4, 3))


def test_of_equal_texts_nothing_can_be_learned() -> None:
    """y- = y+: the best that phi can do is log 2."""
    features = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    toxic = torch.arange(60) < 30
    training = DiscriminatorTraining(Discriminator(6, "linear", 0), lr=0.1, clip=0.0)
    for parameter in training.module.parameters():
        parameter.data += 0.5
    for _ in range(300):
        value = adversarial_loss(training.module(features), toxic, (30.0, 30.0))
        training.add(value)
        training.step()
    assert value.item() == pytest.approx(math.log(2), abs=1e-3) and value.item() >= math.log(2) - 1e-6


@pytest.mark.parametrize("sign", [1, -1])
def test_two_gaussians(sign: int) -> None:
    """Features that may move freely: reversed, the classes meet; with the sign flipped, they part."""
    draw = torch.Generator().manual_seed(0)
    means = torch.zeros(400, 6)
    toxic = torch.arange(400) < 200
    means[toxic, 0] = 2.0
    features = torch.randn(400, 6, generator=draw) + means

    def gap(values: torch.Tensor) -> float:
        """Between the classes' means, of what the discriminator sees: it is blind to mean and scale of a feature."""
        seen = torch.nn.functional.layer_norm(values, (6,))
        return (seen[toxic].mean(0) - seen[~toxic].mean(0)).norm().item()

    # every token of a class moves alike, as through a bias of each class: what is matched are the means
    shift = torch.zeros(2, 6, requires_grad=True)
    training = DiscriminatorTraining(Discriminator(6, "linear", 0), lr=0.2, clip=0.0)
    optimizer = torch.optim.SGD([shift], lr=0.05)
    for number in range(1000):
        moved = features + shift[toxic.long()]
        training.add(adversarial_loss(training.module(moved.detach()), toxic, (200.0, 200.0)))
        if number >= 100:
            reversed_ = GradientReversal.apply(moved, float(sign))
            frozen = {name: p.detach() for name, p in training.module.named_parameters()}
            loss = adversarial_loss(
                torch.func.functional_call(training.module, frozen, (reversed_,)), toxic, (200.0, 200.0)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        training.step()
    moved = (features + shift[toxic.long()]).detach()
    z = training.module(moved)
    accuracy = ((z > 0) == toxic).float().mean().item()
    if sign == 1:
        assert accuracy == pytest.approx(0.5, abs=0.05) and gap(moved) < 0.1 * gap(features)
    else:
        assert accuracy > 0.99 and gap(moved) > gap(features)


def test_width_of_the_discriminator() -> None:
    assert sum(p.numel() for p in Discriminator(8, "linear", 0).parameters()) == 8 + 1
    assert sum(p.numel() for p in Discriminator(8, "mlp", 0).parameters()) == 8 * 8 + 2 * 8 + 1
