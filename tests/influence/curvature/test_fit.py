"""kronfluence's factors against covariances and per-window gradients computed one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.influence.curvature.fit import draw_labels, fit_layers
from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import precondition
from ifguide.influence.options import STRATEGIES, Damping
from ifguide.influence.windows import cut
from tests.influence import reference
from tests.influence.conftest import EOD, WINDOW, load_exact

_SEED = 5


@pytest.fixture
def windows(dataset):
    return cut(dataset, EOD, WINDOW, 4)


def _sampled_windows(model, windows):
    """(inputs[T], positions with a label, labels drawn for them) per window, from the same uniform numbers."""
    uniform = np.random.default_rng([_SEED, 1]).random(int(windows.scored.sum()))
    offset = 0
    for window in range(len(windows)):
        batch = windows.batch(np.array([window]))
        labelled, count = batch.labelled[0], int(windows.scored[window])
        logits = model.model(batch.inputs, use_cache=False).logits[0][labelled]
        cumulative = torch.softmax(logits.detach(), dim=-1).cumsum(dim=-1)
        drawn = [int((row <= u * row[-1]).sum()) for row, u in zip(cumulative, uniform[offset : offset + count])]
        offset += count
        yield batch.inputs[0], labelled, torch.tensor(drawn)


def _slow_statistics(model, windows, name):
    """(A covariance, G covariance, list of per-window gradients) of one layer, one window at a time."""
    layer = model.tracked[name]
    seen: dict[str, torch.Tensor] = {}

    def keep(module, inputs, output):
        output.retain_grad()
        seen.update(a=inputs[0].detach()[0], y=output)

    handle = layer.register_forward_hook(keep)
    reference.track(model)
    inputs_sum, outputs_sum, positions, gradients = 0, 0, 0, []
    for inputs, labelled, labels in list(_sampled_windows(model, windows)):
        logits = model.model(inputs[None], use_cache=False).logits[0][labelled]
        torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
        a, g = seen["a"], seen["y"].grad[0]
        if layer.bias is not None:
            a = torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], dim=1)
        inputs_sum, outputs_sum = inputs_sum + a.T @ a, outputs_sum + g.T @ g
        positions += len(a)
        gradients.append(g.T @ a)
    handle.remove()
    return inputs_sum / positions, outputs_sum / positions, gradients


def _fit(folder, windows, strategy, batch_tokens=64):
    """Layers fitted in fp64 on a model of their own (kronfluence wraps it)."""
    return fit_layers(load_exact(folder), windows, strategy, batch_tokens, _SEED)


@pytest.mark.parametrize("architecture", ["neox", "llama"])
def test_ekfac_equals_the_slow_computation(model_folders, windows, architecture):
    layers = _fit(model_folders[architecture], windows, "ekfac")
    model = load_exact(model_folders[architecture])
    for name in list(model.tracked)[-3:]:
        a_covariance, g_covariance, gradients = _slow_statistics(model, windows, name)
        u_a, u_g = layers[name]["U_A"], layers[name]["U_G"]
        for basis, covariance in ((u_a, a_covariance), (u_g, g_covariance)):
            torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-9)
            rotated = basis.T @ covariance @ basis
            torch.testing.assert_close(
                rotated, torch.diag(rotated.diagonal()), rtol=0, atol=1e-8 * float(rotated.max())
            )
        expected = sum((u_g.T @ g @ u_a) ** 2 for g in gradients) / len(gradients)
        torch.testing.assert_close(layers[name]["Lambda"], expected, rtol=1e-7, atol=1e-10 * float(expected.max()))


def test_kfac_and_diagonal_equal_the_slow_computation(model_folders, windows):
    model = load_exact(model_folders["neox"])
    name = list(model.tracked)[-1]
    a_covariance, g_covariance, gradients = _slow_statistics(model, windows, name)
    kfac = _fit(model_folders["neox"], windows, "kfac")[name]
    dense = torch.kron(g_covariance, a_covariance)
    basis = torch.kron(kfac["U_G"], kfac["U_A"])
    rebuilt = basis @ torch.diag(kfac["Lambda"].flatten()) @ basis.T
    torch.testing.assert_close(rebuilt, dense, rtol=1e-7, atol=1e-10 * float(dense.max()))
    diagonal = _fit(model_folders["neox"], windows, "diagonal")[name]
    expected = sum(g**2 for g in gradients) / len(gradients)
    torch.testing.assert_close(diagonal["Lambda"], expected, rtol=1e-8, atol=1e-12 * float(expected.max()))


def test_padding_and_batch_size_do_not_enter(model_folders, windows, monkeypatch):
    alone = _fit(model_folders["neox"], windows, "kfac", batch_tokens=1)
    monkeypatch.setattr("ifguide.influence.batches.MAX_PADDING", 1.0)
    padded = _fit(model_folders["neox"], windows, "kfac", batch_tokens=10_000)
    for name, layer in alone.items():
        torch.testing.assert_close(padded[name]["Lambda"], layer["Lambda"], rtol=1e-8, atol=1e-10)


def test_drawn_labels_follow_the_model():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)).expand(8, 3)
    uniform = torch.tensor([0.0, 0.2, 0.49, 0.51, 0.7, 0.76, 0.99, 1 - 1e-16], dtype=torch.float64)
    assert draw_labels(logits, uniform).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fitted_factors_are_inverted_with_either_damping(model_folders, windows, strategy):
    """(M1) with the dense matrix that the strategy stands for."""
    layers = _fit(model_folders["neox"], windows, strategy)
    model = load_exact(model_folders["neox"])
    name = min(model.tracked, key=lambda name: np.prod(model.matrix_shape(name)))
    gradient = {key: torch.randn(model.matrix_shape(key), dtype=torch.float64) for key in model.tracked}
    layer, g = layers[name], gradient[name]
    for relative in (True, False):
        found = precondition(gradient, Factors(strategy, layers, {}, ""), Damping(0.2, relative))[name]
        added = 0.2 * (float(layer["Lambda"].mean()) if relative and layer else 1.0)
        if strategy == "identity":
            expected = g  # H~ = I, and nothing is added
        elif strategy == "diagonal":
            expected = g / (layer["Lambda"] + added)
        else:
            expected = reference.dense_inverse(layer, added, g)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))
