"""Fitting from files to files: the record, the sample, and what stops it before the fit."""

from __future__ import annotations

import json

import pytest
import torch

from ifguide.cli import main
from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.influence.curvature import fit as factors_module
from ifguide.influence.curvature import job as job_module
from ifguide.influence.curvature.fit import fit_layers
from ifguide.influence.curvature.job import fit_factors
from ifguide.influence.curvature.store import check_model, load_factors
from ifguide.influence.options import FitOptions
from ifguide.influence.windows import cut, sample
from ifguide.models.tracked import load_model
from tests.influence.conftest import EOD, WINDOW

_SEED = 5


@pytest.fixture
def windows(dataset):
    return cut(dataset, EOD, WINDOW, 4)


def test_files_are_ours_and_replayable(tmp_path, model_folders, dataset):
    for output in ("a", "b"):
        record = fit_factors(
            model_folders["neox"], dataset.prefix, tmp_path / output, FitOptions(max_tokens=60), quiet=True
        )
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
    fit_factors(model_folders["gpt2"], dataset.prefix, tmp_path / "f", FitOptions(strategy="identity"), quiet=True)
    factors = load_factors(tmp_path / "f")
    assert factors.strategy == "identity" and all(layer == {} for layer in factors.layers.values())


@pytest.mark.parametrize("strategy", ["ekfac", "identity"])
def test_several_processes_are_refused(tmp_path, model_folders, dataset, monkeypatch, strategy):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="this is one of 4"):
        fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", FitOptions(strategy=strategy), quiet=True)
    assert not (tmp_path / "f").exists()


def test_the_stated_sample_is_what_is_fitted_on(tmp_path, model_folders, dataset, windows):
    """The record says how many tokens and windows; the factors are those of just these."""
    options = FitOptions(strategy="diagonal", max_tokens=50, seed=_SEED, context=4)
    record = fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", options, quiet=True)
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


def test_a_cut_fit_says_so_and_gives_the_same_factors(tmp_path, model_folders, dataset, monkeypatch, capsys):
    command = ["fit-factors", "--model", str(model_folders["neox"]), "--data", str(dataset.prefix)]
    command += ["--max-tokens", "60"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    assert "partitions" not in capsys.readouterr().out
    monkeypatch.setattr(factors_module, "free_memory", lambda device: 1)
    assert main([*command, "--output", str(tmp_path / "cut")]) == 0
    assert "covariances in 8 partitions of layers, second moments in 8 partitions" in capsys.readouterr().out
    recorded = [json.loads((tmp_path / name / "run.json").read_text())["parameters"] for name in ("whole", "cut")]
    assert [found["partitions"]["covariances"] for found in recorded] == [1, 8]
    whole, cut_down = (load_factors(tmp_path / name) for name in ("whole", "cut"))
    for name, layer in whole.layers.items():
        for key, tensor in layer.items():
            torch.testing.assert_close(cut_down.layers[name][key], tensor, rtol=1e-4, atol=0)


def test_a_broken_model_is_found_before_the_fit(tmp_path, model_folders, dataset, monkeypatch):
    monkeypatch.setattr(factors_module, "_run_kronfluence", lambda *_: pytest.fail("too late"))
    loaded = load_model(model_folders["neox"], implementation="sdpa", device="cpu")
    name, layer = list(loaded.tracked.items())[-1]
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    monkeypatch.setattr(job_module, "load_model", lambda *_, **__: loaded)
    with pytest.raises(NumericsError, match=name):
        fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", quiet=True)
    assert not (tmp_path / "f").exists()
