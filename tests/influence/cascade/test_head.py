"""The cheap pass against forward mode and a least-squares fit written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from ifguide.influence.cascade.choice import choose
from ifguide.influence.cascade.head import LinearHead, cheap_pass, fit_linear_head
from ifguide.influence.options import CascadeSettings
from ifguide.influence.passes.difference import DifferencePass
from ifguide.influence.windows import cut
from ifguide.selection import SelectionSettings
from tests.influence.cascade.test_choice import make_source
from tests.influence.conftest import EOD, WINDOW


@pytest.fixture
def windows(dataset):
    return cut(dataset, EOD, WINDOW, 4)


def _directions(model, count):
    generator = torch.Generator().manual_seed(1)
    return [
        {n: torch.randn(model.matrix_shape(n), generator=generator, dtype=torch.float64) for n in model.tracked}
        for _ in range(count)
    ]


def test_head_is_the_least_squares_fit_of_the_mean_next_embedding(model, windows):
    head = fit_linear_head(model, windows, 64)
    rows, means = [], []
    for window in range(len(windows)):
        batch = windows.batch(np.array([window]))
        output = model.model(batch.inputs, use_cache=False, output_hidden_states=True)
        for position in torch.nonzero(batch.labelled[0]).flatten():
            probabilities = torch.softmax(output.logits[0, position], dim=-1)
            rows.append(output.hidden_states[-1][0, position])
            means.append(sum(p * w for p, w in zip(probabilities, model.head.weight)))
    x, y = torch.stack(rows), torch.stack(means)
    left = y - (x @ head.matrix.T + head.offset)
    # the normal equations: what is left has no part in the space of the features
    features = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    assert float((features.T @ left).abs().max()) < 1e-8 * float(features.norm() * y.norm())
    total = float((y - y.mean(dim=0)).square().sum())
    assert head.explained == pytest.approx(1 - float(left.square().sum()) / total, abs=1e-9)
    assert 0 < head.explained <= 1


def test_scores_are_the_approximate_gradient_times_the_tangent(model, windows):
    directions = _directions(model, 2)
    head = fit_linear_head(model, windows, 64)
    batch = windows.batch(np.arange(len(windows)))
    found = cheap_pass(model, directions, head, step=1e-7).scores(batch)
    parameters = model.tracked_parameters()
    for scores, direction in zip(found, directions):
        tangents = model.split_bias(direction)
        with torch.no_grad(), forward_ad.dual_level(), model.attention("ifguide_dual"):
            duals = {name: forward_ad.make_dual(parameters[name], tangents[name]) for name in tangents}
            hidden, tangent = forward_ad.unpack_dual(model.hidden(batch.inputs, duals))
        expected = torch.zeros_like(scores)
        for row, position in torch.nonzero(batch.labelled):
            gradient = (
                head.matrix @ hidden[row, position] + head.offset - model.head.weight[batch.labels[row, position]]
            )
            expected[row, position] = gradient @ tangent[row, position]
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_head_that_knows_the_softmax_gives_exact_scores(model, windows):
    """With the true mean in place of A h + b the cheap pass is the one-sided difference."""

    class Knowing(LinearHead):
        def __call__(self, model, hidden, labels):
            return torch.softmax(model.logits(hidden), dim=-1) @ model.head.weight - model.head.weight[labels]

    directions = _directions(model, 1)
    batch = windows.batch(np.arange(len(windows)))
    found = cheap_pass(model, directions, Knowing(torch.empty(0), torch.empty(0), 1.0), 1e-6).scores(batch)
    expected = DifferencePass(model, directions, 1e-6, one_sided=True).scores(batch)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_exact_pass_over_chosen_windows_gives_the_full_pass_scores(model, dataset, windows):
    scorer = DifferencePass(model, _directions(model, 1), 1e-6)

    def score(which):
        values = np.full(dataset.num_tokens, np.nan)
        for window in which:
            batch = windows.batch(np.array([window]))
            values[windows.places(np.array([window]))] = scorer.scores(batch)[0][batch.labelled]
        return values

    full = score(range(len(windows)))
    selection = SelectionSettings(unit_tokens=10, threshold_quantile=0.9)
    source = make_source(full, dataset.lengths)
    choice = choose(source, CascadeSettings(0.4, 0.1, 0, selection))
    known = choice.exact_tokens(0, dataset.num_tokens)
    assert 0 < known.sum() < dataset.num_tokens
    np.testing.assert_array_equal(score(choice.windows(windows))[known], full[known])
