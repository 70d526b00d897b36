"""(M1) and (M2) together against what really happens when the model learns a token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import compute_directions, precondition
from ifguide.influence.options import Damping
from ifguide.influence.passes.difference import DifferencePass
from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.queries import make_query
from ifguide.influence.windows import cut
from tests.influence import reference
from tests.influence.conftest import EOD, WINDOW

# the longest step, relative to the weights: that of a training step with a usual learning rate
STEP = 1e-3


def _queries(seed, weights):
    rng = np.random.default_rng(seed)
    return [
        make_query(rng.integers(1, 256, 1 + n), rng.integers(1, 256, 2 + 3 * n), EOD, weight)
        for n, weight in enumerate(weights)
    ]


def _length(matrices) -> float:
    return reference.dot(matrices, matrices) ** 0.5


@torch.no_grad()
def _margin_after(model, move, size, toxic, safe) -> float:
    """The margin at ``θ - size · move``."""
    reference.step(model, move, -size)
    value = float(reference.margin(model, toxic, safe))
    reference.step(model, move, size)
    return value


@pytest.mark.parametrize("strategy", ["identity", "ekfac"])
def test_every_token_moves_the_margin_as_predicted(model, dataset, strategy):
    """θ - ε H~^-1 ∇l_ij moves the toxic-minus-safe log-likelihood by ε s_ij, for every token of every document.

    One ε for all tokens: small enough for the prediction to be linear in it, of the size of a real training step for
    the token that moves most. In the limit of small ε, the change is the score itself.
    """
    toxic, safe, damping = _queries(1, (1.0, 0.5)), _queries(2, (1.0, 2.0)), Damping(0.1)
    layers = reference.random_factors(model) if strategy == "ekfac" else {name: {} for name in model.tracked}
    factors = Factors(strategy, layers, {}, "test")
    direction = compute_directions(model, factors, [(toxic, safe)], damping, batch_tokens=64)[0]
    windows = cut(dataset, EOD, WINDOW, 4)
    batch = windows.batch(np.arange(len(windows)))
    scores = ForwardModePass(model, [direction]).scores(batch)[0]
    torch.testing.assert_close(
        DifferencePass(model, [direction], 1e-5).scores(batch)[0], scores, rtol=1e-4, atol=1e-6 * float(scores.max())
    )

    reference.track(model)
    moves = []
    for row in range(len(windows)):
        labels, labelled = batch.labels[row], batch.labelled[row]
        losses = reference.losses(model, batch.inputs[row], labels.clamp(min=0))[labelled]
        moves += [precondition(reference.gradient(model, loss), factors, damping) for loss in losses]
    predicted = scores[batch.labelled].tolist()
    assert len(moves) == len(predicted) == dataset.num_tokens

    longest = max(map(_length, moves))
    size = STEP * _length({name: layer.weight.detach() for name, layer in model.tracked.items()}) / longest
    before = _margin_after(model, moves[0], 0.0, toxic, safe)
    actual = [_margin_after(model, move, size, toxic, safe) - before for move in moves]
    assert np.corrcoef(predicted, actual)[0, 1] > 0.99
    assert np.polyfit(predicted, actual, 1)[0] == pytest.approx(size, rel=0.05)
    for token in range(0, len(moves), 10):
        tiny = 1e-4 / _length(moves[token])
        above, below = (_margin_after(model, moves[token], sign * tiny, toxic, safe) for sign in (1, -1))
        measured = (above - below) / (2 * tiny)
        assert measured == pytest.approx(predicted[token], rel=1e-4, abs=1e-6 * float(scores.abs().max()))
