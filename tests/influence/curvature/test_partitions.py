"""How a fit is cut, by a table of sizes and free bytes; and that the cut changes no factor."""

from __future__ import annotations

import pytest
import torch

from ifguide.influence.curvature import fit
from ifguide.influence.curvature.fit import fit_layers
from ifguide.influence.curvature.partitions import (
    FitSizes,
    Partitions,
    choose_partitions,
    covariance_bytes,
    second_moment_bytes,
    windows_at_once,
)
from ifguide.influence.windows import cut
from tests.influence.conftest import EOD, WINDOW, load_exact

# four layers of 10 x 10: 200 numbers of covariances each, 100 of second moments; 50 positions
LAYERS = [(10, 10)] * 4
SIZES = FitSizes(LAYERS, batch=50, windows=2, working=1000)


@pytest.mark.parametrize("partitions, squares", [(1, 800), (2, 400), (3, 400), (4, 200)])
def test_covariances_of_the_largest_part_count(partitions, squares):
    assert covariance_bytes(SIZES, partitions) == 1000 + 4 * (squares + 2 * 50 * 10)


@pytest.mark.parametrize(
    "strategy, partitions, offload, numbers",
    [
        ("ekfac", 1, False, 800 + 400 + 50 * 40),
        ("ekfac", 2, False, 400 + 200 + 50 * 20),
        ("ekfac", 2, True, 400 + 200 + 50 * 10),
        ("diagonal", 1, False, 400 + 50 * 40),
        ("diagonal", 4, True, 100 + 50 * 10),
    ],
)
def test_second_moments_with_their_bases_and_inputs_count(strategy, partitions, offload, numbers):
    gradients = 3 * 2 * 100
    assert second_moment_bytes(SIZES, strategy, partitions, offload) == 1000 + 4 * (gradients + numbers)


# covariances: 8200, 6600, 6600, 5800; ekfac's Λ: 16200 / 8200 kept, 10200 / ... moved
@pytest.mark.parametrize(
    "strategy, free, expected",
    [
        ("ekfac", None, Partitions()),
        ("identity", 0, Partitions()),
        ("ekfac", 20_000, Partitions()),
        ("kfac", 9_200, Partitions()),
        ("kfac", 9_000, Partitions(covariances=2)),
        ("kfac", 7_000, Partitions(covariances=4)),
        ("kfac", 100, Partitions(covariances=4)),
        ("diagonal", 9_000, Partitions(offload=True)),
        ("diagonal", 15_000, Partitions()),
        ("ekfac", 12_000, Partitions(offload=True)),
        ("ekfac", 100, Partitions(4, 4, True)),
    ],
)
def test_the_fewest_passes_that_fit_are_chosen(strategy, free, expected):
    assert choose_partitions(SIZES, strategy, free) == expected


@pytest.mark.parametrize("strategy", ["ekfac", "kfac", "diagonal"])
def test_less_memory_never_means_fewer_passes_and_what_fits_fits(strategy):
    before = 10_000
    for free in range(0, 30_000, 250):
        found = choose_partitions(SIZES, strategy, free)
        assert found.passes(strategy) <= before
        before = found.passes(strategy)
        if strategy != "diagonal" and found.covariances < len(LAYERS):
            assert covariance_bytes(SIZES, found.covariances) <= free
        if strategy != "kfac" and found.second_moments < len(LAYERS):
            assert second_moment_bytes(SIZES, strategy, found.second_moments, found.offload) <= free
    assert found == Partitions()


def test_a_batch_has_the_gradients_of_at_least_one_window():
    assert windows_at_once([(1 << 13, 1 << 11), (8, 8)]) == 8
    assert windows_at_once([(1 << 16, 1 << 16)]) == 1


def test_the_cut_is_told():
    assert Partitions().describe() == ""
    assert Partitions(3, 1, True).describe() == (
        "covariances in 3 partitions of layers, activations wait in the host's memory"
    )
    assert [Partitions(3, 2).passes(name) for name in ("ekfac", "kfac", "diagonal")] == [5, 3, 2]


@pytest.mark.parametrize("strategy", ["ekfac", "kfac", "diagonal"])
def test_factors_do_not_depend_on_the_cut(model_folders, dataset, strategy):
    windows = cut(dataset, EOD, WINDOW, 4)

    def fitted(partitions):
        return fit_layers(load_exact(model_folders["neox"]), windows, strategy, 64, 5, partitions=partitions)

    whole, parts = fitted(Partitions()), fitted(Partitions(3, 2, True))
    for name, layer in whole.items():
        for key, tensor in layer.items():
            torch.testing.assert_close(parts[name][key], tensor, rtol=1e-12, atol=1e-14)


def test_no_batch_of_a_fit_has_more_tokens_than_the_bound(model_folders, dataset, monkeypatch):
    windows = cut(dataset, EOD, WINDOW, 4)
    expected = fit_layers(load_exact(model_folders["neox"]), windows, "diagonal", 10_000, 5)
    monkeypatch.setattr(fit, "BACKWARD_TOKENS", 40)
    seen = []
    batches = fit._Batches

    class Watched(batches):
        def __getitem__(self, index):
            found = super().__getitem__(index)
            seen.append(found["inputs"].shape)
            return found

    monkeypatch.setattr(fit, "_Batches", Watched)
    found = fit_layers(load_exact(model_folders["neox"]), windows, "diagonal", 10_000, 5)
    assert len(seen) > 1 and all(rows == 1 or rows * columns <= 40 for rows, columns in seen)
    for name, layer in expected.items():
        largest = float(layer["Lambda"].max())
        torch.testing.assert_close(found[name]["Lambda"], layer["Lambda"], rtol=1e-8, atol=1e-12 * largest)


def test_a_device_with_little_memory_cuts_the_fit(model_folders, dataset, monkeypatch):
    windows = cut(dataset, EOD, WINDOW, 4)
    monkeypatch.setattr(fit, "free_memory", lambda device: 1)
    layers = len(load_exact(model_folders["neox"]).tracked)
    found = fit.partitions_for(load_exact(model_folders["neox"]), windows, "ekfac", 64)
    assert found == Partitions(layers, layers, True)
    monkeypatch.setattr(fit, "free_memory", lambda device: 1 << 40)
    assert fit.partitions_for(load_exact(model_folders["neox"]), windows, "ekfac", 64) == Partitions()
