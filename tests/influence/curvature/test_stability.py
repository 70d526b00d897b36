"""Scores with the factors of two halves of the sample, against a loop over single tokens; and the command."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

from ifguide import cli
from ifguide.influence.curvature import stability as factor_stability
from ifguide.influence.curvature.fit import fit_layers
from ifguide.influence.curvature.stability import Stability, halves, score_both, some_documents
from ifguide.influence.curvature.store import load_factors
from ifguide.influence.options import Damping
from ifguide.influence.queries import load_query_sets
from ifguide.influence.windows import cut
from tests.influence import reference
from tests.influence.conftest import EOD, WINDOW, load_exact
from tests.support.datasets import random_documents, write_tokens

_SEED = 3
_BATCH_TOKENS = 64


@pytest.fixture
def windows(dataset):
    return cut(dataset, EOD, WINDOW, 4)


@pytest.fixture
def queries(model_folders, query_files):
    model = load_exact(model_folders["neox"])
    return load_query_sets(*query_files, model.reader, model.window)


def _measure(model_folders, query_files, queries, windows, strategy, **settings):
    test = Stability(*query_files, **settings)
    load = partial(load_exact, model_folders["neox"])
    return test.measure(load, queries, windows, windows, strategy, _BATCH_TOKENS, _SEED)


@pytest.mark.parametrize("seed", range(5))
def test_the_halves_are_disjoint_and_complete(windows, seed):
    parts = halves(windows, seed)
    documents = [set(part.document.tolist()) for part in parts]
    assert not documents[0] & documents[1] and all(documents)
    assert documents[0] | documents[1] == set(windows.document.tolist())
    starts = [list(zip(part.document, part.first)) for part in parts]
    assert sorted(starts[0] + starts[1]) == list(zip(windows.document, windows.first))
    assert all(start == sorted(start) for start in starts)
    tokens = [int(part.scored.sum()) for part in parts]
    assert sum(tokens) == windows.scored.sum() and abs(tokens[0] - tokens[1]) <= windows.dataset.lengths.max()
    again = halves(windows, seed)
    assert all(np.array_equal(part.document, same.document) for part, same in zip(parts, again))


def test_other_seeds_give_other_halves(windows):
    assert len({tuple(np.unique(halves(windows, seed)[0].document)) for seed in range(10)}) > 5


def test_whole_documents_are_scored(windows):
    chosen = some_documents(windows, 30, _SEED)
    assert 30 <= chosen.scored.sum() < windows.scored.sum()
    lengths = windows.dataset.lengths[np.unique(chosen.document)]
    assert chosen.scored.sum() == lengths.sum()
    assert len(some_documents(windows, 10**9, _SEED)) == len(windows)


@pytest.mark.parametrize("strategy", ["ekfac", "diagonal"])
def test_the_figures_are_those_of_a_plain_loop(model_folders, query_files, queries, windows, strategy):
    """Factors of each half, dense inverse, one backward a token, ranks by counting."""
    damping = Damping(0.3)
    found = _measure(model_folders, query_files, queries, windows, strategy, tokens=60, damping=damping)
    model = load_exact(model_folders["neox"])
    reference.track(model)
    ascent = reference.gradient(model, reference.margin(model, *queries))
    directions = []
    for part in halves(windows, _SEED):
        layers = fit_layers(load_exact(model_folders["neox"]), part, strategy, _BATCH_TOKENS, _SEED)
        directions.append({name: _inverse(layers[name], 0.3, -g) for name, g in ascent.items()})
    chosen = some_documents(windows, 60, _SEED)
    scores: list[list[float]] = [[], []]
    for window in range(len(chosen)):
        batch = chosen.batch(np.array([window]))
        losses = reference.losses(model, batch.inputs[0], batch.labels[0].clamp(min=0))[batch.labelled[0]]
        for loss in losses:
            gradient = reference.gradient(model, loss)
            for values, direction in zip(scores, directions):
                values.append(reference.dot(direction, gradient))
    ranks = [[sum(other < value for other in values) for value in values] for values in scores]
    top = max(1, round(0.01 * len(scores[0])))
    best = [set(np.argsort(values)[-top:].tolist()) for values in scores]
    assert found["scored_tokens"] == len(scores[0]) == chosen.scored.sum()
    assert found["rank_correlation"] == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-4)
    assert found["top_1_percent_overlap"] == len(best[0] & best[1]) / len(best[0] | best[1])
    assert found["rank_correlation"] < 1, "two halves of a tiny sample agree entirely: the test shows nothing"
    assert sum(half["tokens"] for half in found["halves"]) == windows.scored.sum()


def _inverse(layer, damping, g):
    added = damping * float(layer["Lambda"].mean())
    return reference.dense_inverse(layer, added, g) if "U_A" in layer else g / (layer["Lambda"] + added)


def test_equal_halves_agree_entirely(model_folders, query_files, queries, windows, monkeypatch):
    monkeypatch.setattr(factor_stability, "halves", lambda windows, seed: (windows, windows))
    found = _measure(model_folders, query_files, queries, windows, "ekfac")
    assert found["rank_correlation"] == pytest.approx(1, abs=1e-12) and found["top_1_percent_overlap"] == 1


def test_scores_come_in_one_order_for_both(model_folders, windows):
    model = load_exact(model_folders["neox"])
    direction = {name: torch.randn(model.matrix_shape(name), dtype=torch.float64) for name in model.tracked}
    doubled = {name: 2 * matrix for name, matrix in direction.items()}
    first, second = score_both(model, [direction, doubled], windows, _BATCH_TOKENS, quiet=True)
    torch.testing.assert_close(2 * first, second, rtol=1e-9, atol=1e-12)


def _command(folder, data, output, *more):
    return ["fit-factors", "--model", str(folder), "--data", str(data), "--output", str(output), *map(str, more)]


def test_the_command(tmp_path, model_folders, dataset, query_files, capsys):
    more = ["--max-tokens", 100, "--stability", "--toxic-queries", query_files[0], "--safe-queries", query_files[1]]
    assert cli.main(_command(model_folders["neox"], dataset.prefix, tmp_path / "f", *more)) == 0
    assert "stability of" in capsys.readouterr().out
    record = json.loads((tmp_path / "f/factors.json").read_text())
    assert load_factors(tmp_path / "f").record == record
    assert 0 < record["stability"]["rank_correlation"] <= 1
    assert sum(half["tokens"] for half in record["stability"]["halves"]) == record["tokens"]
    plain = _command(model_folders["neox"], dataset.prefix, tmp_path / "g", "--max-tokens", 100)
    assert cli.main(plain) == 0
    assert (tmp_path / "f/factors.safetensors").read_bytes() == (tmp_path / "g/factors.safetensors").read_bytes()


def test_bad_arguments(tmp_path, model_folders, dataset, query_files, capsys):
    queries = ["--toxic-queries", query_files[0], "--safe-queries", query_files[1]]
    short = write_tokens(tmp_path / "short_text_document", random_documents([40]))
    cases = [
        (dataset, ["--stability"], ["--stability needs --toxic-queries", "--stability needs --safe-queries"]),
        (dataset, [*queries[:2]], ["--toxic-queries belongs to --stability; add that, or leave it out"]),
        (
            dataset,
            ["--stability", *queries[:3], tmp_path / "absent", "--strategy", "identity", "--stability-tokens", 0],
            ["--stability: the identity is not fitted", "--stability-tokens 0: must be", "safe queries"],
        ),
        (short, ["--stability", *queries], ["a sample of one document has no two halves"]),
    ]
    for data, more, expected in cases:
        assert cli.main(_command(model_folders["neox"], data.prefix, tmp_path / "f", *more)) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == len(expected) and all(text in line for text, line in zip(expected, lines))
        assert not (tmp_path / "f").exists()
