"""(M1) against dense matrices and one backward per query."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.errors import InputError, NumericsError
from ifguide.influence.behaviours import QueryFiles, load_behaviours
from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import (
    compute_directions,
    load_direction,
    mean_gradient,
    precondition,
    save_direction,
)
from ifguide.influence.options import Damping
from ifguide.influence.queries import make_query
from tests.influence import reference
from tests.influence.conftest import EOD


def _factors(model, strategy):
    layers = {"ekfac": reference.random_factors(model), "identity": {name: {} for name in model.tracked}}[strategy]
    return Factors(strategy, layers, {}, "test")


def _queries(seed, weights=(1.0, 1.0, 1.0)):
    rng = np.random.default_rng(seed)
    return [
        make_query(rng.integers(1, 256, 1 + n), rng.integers(1, 256, 2 + 3 * n), EOD, weight)
        for n, weight in enumerate(weights)
    ]


def test_ekfac_inverse_equals_the_dense_one(model):
    factors = _factors(model, "ekfac")
    gradient = {name: torch.randn(model.matrix_shape(name), dtype=torch.float64) for name in model.tracked}
    name = min(model.tracked, key=lambda name: gradient[name].numel())
    layer = factors.layers[name]
    relative = precondition(gradient, factors, Damping(0.1))[name]
    expected = reference.dense_inverse(layer, 0.1 * float(layer["Lambda"].mean()), gradient[name])
    torch.testing.assert_close(relative, expected, rtol=1e-8, atol=1e-8)
    absolute = precondition(gradient, factors, Damping(0.02, relative=False))[name]
    torch.testing.assert_close(absolute, reference.dense_inverse(layer, 0.02, gradient[name]), rtol=1e-8, atol=1e-8)


def test_diagonal_and_identity(model):
    gradient = {name: torch.randn(model.matrix_shape(name), dtype=torch.float64) for name in model.tracked}
    curvature = {name: {"Lambda": matrix**2 + 1} for name, matrix in gradient.items()}
    diagonal = precondition(gradient, Factors("diagonal", curvature, {}, ""), Damping(0.5, relative=False))
    identity = precondition(gradient, _factors(model, "identity"), Damping(0.5))
    for name, matrix in gradient.items():
        torch.testing.assert_close(diagonal[name], matrix / (matrix**2 + 1.5))
        torch.testing.assert_close(identity[name], matrix, rtol=0, atol=0)


def test_zero_curvature_names_the_layer(model):
    gradient = {name: torch.ones(model.matrix_shape(name), dtype=torch.float64) for name in model.tracked}
    name = next(iter(gradient))
    layers = {key: {"Lambda": (key != name) * matrix} for key, matrix in gradient.items()}
    with pytest.raises(NumericsError, match=name):
        precondition(gradient, Factors("diagonal", layers, {}, ""), Damping(0.1))
    with pytest.raises(InputError, match="--damping"):
        Damping(float("nan"))


@pytest.mark.parametrize("batch_tokens", [1, 30, 1000])
def test_mean_gradient_equals_one_backward_per_query(model, batch_tokens):
    queries = _queries(0, weights=(1.0, 0.5, 3.0))
    found = mean_gradient(model, queries, batch_tokens)
    reference.track(model)
    each = [reference.gradient(model, reference.query_loss(model, query)) for query in queries]
    for name in model.tracked:
        expected = sum(query.weight * g[name] for query, g in zip(queries, each)) / sum(q.weight for q in queries)
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-11)


def test_saved_directions_are_reused_only_for_the_same_run(tmp_path, model):
    direction = {name: torch.randn(model.matrix_shape(name)) for name in model.tracked}
    save_direction(tmp_path / "s", direction, {"damping": 0.1})
    found = load_direction(tmp_path / "s", {"damping": 0.1})
    assert found is not None and all(torch.equal(found[name], matrix) for name, matrix in direction.items())
    assert load_direction(tmp_path / "s", {"damping": 0.2}) is None
    (tmp_path / "s.direction.safetensors").write_bytes(b"broken")
    assert load_direction(tmp_path / "s", {"damping": 0.1}) is None
    assert load_direction(tmp_path / "other", {"damping": 0.1}) is None


def test_without_safe_queries_it_is_the_toxic_gradient_alone(model):
    factors, toxic, safe = _factors(model, "ekfac"), _queries(1), _queries(2)
    alone, both = compute_directions(model, factors, [(toxic, []), (toxic, safe)], Damping(0.1), 512)
    g_toxic, g_safe = mean_gradient(model, toxic, 512), mean_gradient(model, safe, 512)
    expected = precondition(g_toxic, factors, Damping(0.1))
    difference = precondition({name: g_toxic[name] - g_safe[name] for name in g_toxic}, factors, Damping(0.1))
    for name in model.tracked:
        torch.testing.assert_close(alone[name], expected[name], rtol=0, atol=0)
        torch.testing.assert_close(both[name], difference[name], rtol=0, atol=0)


def test_a_behaviour_without_safe_queries_records_none(model, tmp_path):
    rows = '{"prompt": "a", "completion": " b"}\n' * 2
    (tmp_path / "toxic.jsonl").write_text(rows)
    (alone,) = load_behaviours([QueryFiles(tmp_path / "toxic.jsonl", None)], False, model.reader, None)
    assert len(alone.toxic) == 2 and not alone.safe
    assert list(alone.fingerprints) == list(alone.sources) == ["toxic_queries"]


@pytest.mark.parametrize(
    "given", [["--safe-queries", "s"], ["--behaviour", "n", "t", "s"]], ids=["safe queries", "behaviours"]
)
def test_toxic_alone_takes_no_safe_queries(given, tmp_path, capsys):
    from ifguide.cli import main

    command = [
        "score",
        "--model",
        "m",
        "--data",
        "d",
        "--factors",
        "f",
        "--output",
        str(tmp_path / "s"),
        "--toxic-alone",
    ]
    if given[0] == "--safe-queries":
        command += ["--toxic-queries", "t"]
    assert main([*command, *given]) == 2
    assert "--toxic-alone" in capsys.readouterr().err
