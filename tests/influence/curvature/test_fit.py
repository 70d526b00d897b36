"""kronfluence's factors against covariances and per-window gradients computed one at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.influence.curvature import fit as factors_module
from ifguide.influence.curvature.fit import (
    STRATEGIES,
    Factors,
    check_model,
    draw_labels,
    fit_factors,
    fit_layers,
    load_factors,
)
from ifguide.influence.direction import Damping, precondition
from ifguide.influence.windows import cut, sample
from ifguide.models.tracked import load_model
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


def test_files_are_ours_and_replayable(tmp_path, model_folders, dataset):
    for output in ("a", "b"):
        record = fit_factors(model_folders["neox"], dataset.prefix, tmp_path / output, max_tokens=60, quiet=True)
    assert (tmp_path / "a/factors.safetensors").read_bytes() == (tmp_path / "b/factors.safetensors").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "factors.json",
        "factors.safetensors",
        "run.json",
    ]
    factors = load_factors(tmp_path / "a")
    model = load_model(model_folders["neox"], device="cpu")
    check_model(factors, model)
    assert 60 <= record["tokens"] < 60 + WINDOW and record["lambda_scale"] == "per window"
    for name in model.tracked:
        outputs, inputs = model.matrix_shape(name)
        shapes = {key: tuple(tensor.shape) for key, tensor in factors.layers[name].items()}
        assert shapes == {"U_A": (inputs, inputs), "U_G": (outputs, outputs), "Lambda": (outputs, inputs)}
    with pytest.raises(MismatchError, match="another model"):
        check_model(factors, load_model(model_folders["llama"], device="cpu"))


def test_identity_needs_no_pass_over_the_data(tmp_path, model_folders, dataset, monkeypatch):
    monkeypatch.setattr(factors_module, "_run_kronfluence", lambda *_: pytest.fail("not needed"))
    fit_factors(model_folders["gpt2"], dataset.prefix, tmp_path / "f", strategy="identity", quiet=True)
    factors = load_factors(tmp_path / "f")
    assert factors.strategy == "identity" and all(layer == {} for layer in factors.layers.values())


@pytest.mark.parametrize("strategy", ["ekfac", "identity"])
def test_several_processes_are_refused(tmp_path, model_folders, dataset, monkeypatch, strategy):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="this is one of 4"):
        fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", strategy=strategy, quiet=True)
    assert not (tmp_path / "f").exists()


def test_other_files_are_refused(tmp_path, model_folders, dataset):
    fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", strategy="identity", quiet=True)
    record = json.loads((tmp_path / "f/factors.json").read_text())
    (tmp_path / "f/factors.json").write_text(json.dumps({**record, "tensors": "0" * 64}))
    with pytest.raises(InputError, match="run fit-factors again"):
        load_factors(tmp_path / "f")
    (tmp_path / "f/factors.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(InputError, match="format"):
        load_factors(tmp_path / "f")
    with pytest.raises(InputError, match="does not exist"):
        load_factors(tmp_path / "nothing")


def test_the_stated_sample_is_what_is_fitted_on(tmp_path, model_folders, dataset, windows):
    """The record says how many tokens and windows; the factors are those of just these."""
    record = fit_factors(
        model_folders["neox"], dataset.prefix, tmp_path / "f", strategy="diagonal", max_tokens=50, seed=_SEED,
        context=4, quiet=True,
    )  # fmt: skip
    chosen = sample(windows, 50, _SEED)
    assert (record["max_tokens"], record["seed"]) == (50, _SEED)
    assert (record["tokens"], record["windows"]) == (int(chosen.scored.sum()), len(chosen))
    assert len(chosen) < len(windows)
    other = sample(windows, 50, _SEED + 1)
    assert list(zip(chosen.document, chosen.first)) != list(zip(other.document, other.first))
    model = load_model(model_folders["neox"], implementation="sdpa", device="cpu")
    expected = fit_layers(model, chosen, "diagonal", 16 * WINDOW, _SEED)
    for name, layer in load_factors(tmp_path / "f").layers.items():
        torch.testing.assert_close(layer["Lambda"], expected[name]["Lambda"], rtol=1e-4, atol=0)


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


def test_a_broken_model_is_found_before_the_fit(tmp_path, model_folders, dataset, monkeypatch):
    monkeypatch.setattr(factors_module, "_run_kronfluence", lambda *_: pytest.fail("too late"))
    loaded = load_model(model_folders["neox"], implementation="sdpa", device="cpu")
    name, layer = list(loaded.tracked.items())[-1]
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    monkeypatch.setattr(factors_module, "load_model", lambda *_, **__: loaded)
    with pytest.raises(NumericsError, match=name):
        fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", quiet=True)
    assert not (tmp_path / "f").exists()
