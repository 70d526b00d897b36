"""Deliberately broken models, data and factors: every offender is named, and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.influence.batches import group_by_length
from ifguide.influence.curvature.store import Factors
from ifguide.influence.passes.checks import check_factors, check_model_on, first_bad_layer, largest_batch, memory_advice
from ifguide.influence.windows import cut
from tests.influence.conftest import WINDOW, load_exact
from tests.influence.reference import random_factors
from tests.support.datasets import random_documents, write_tokens

ARCHITECTURES = ("neox", "llama", "gpt2")


@pytest.fixture
def batch(dataset):
    return largest_batch(cut(dataset, 0, WINDOW, 4), 2 * WINDOW)


def ekfac(model) -> Factors:
    return Factors("ekfac", random_factors(model), {}, "")


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sound_model_passes_and_is_left_as_it_was(architecture, backward, model_folders, batch):
    model = load_exact(model_folders[architecture])
    check_model_on(model, batch, backward)
    assert not any(module._forward_hooks for module in model.model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


def test_the_largest_batch_has_the_most_tokens_and_the_longest_windows(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 3 * WINDOW, 200)
    windows = cut(write_tokens(tmp_path / "d", random_documents(lengths.tolist())), 0, WINDOW, 4)
    batch = largest_batch(windows, 5 * WINDOW)
    groups = group_by_length(windows.lengths, 5 * WINDOW)
    assert batch.inputs.shape == (5, WINDOW)
    assert batch.inputs.numel() >= max(len(group) * windows.lengths[group].max() for group in groups)
    assert largest_batch(windows, 5 * WINDOW, max_rows=2).inputs.shape == (2, WINDOW)
    assert largest_batch(windows, 1).inputs.shape == (1, WINDOW)


@pytest.mark.parametrize("backward", [False, True])
def test_a_nan_in_one_weight_names_that_weight_alone(model, batch, backward):
    name = next(iter(model.tracked))
    with torch.no_grad():
        model.tracked[name].weight[0, 1] = float("nan")
    with pytest.raises(NumericsError) as error:
        check_model_on(model, batch, backward)
    assert str(error.value).startswith(f"weight {name}.weight of model ")
    assert "holds 1 numbers" in str(error.value) and "\n" not in str(error.value)


def test_two_broken_weights_are_told_at_once(model_folders, batch):
    model = load_exact(model_folders["neox"])
    norms = [name for name, _ in model.model.named_parameters() if "input_layernorm.weight" in name]
    with torch.no_grad():
        for name in norms:
            model.model.get_parameter(name)[0] = float("inf")
    with pytest.raises(NumericsError) as error:
        check_model_on(model, batch)
    assert [line.split()[1] for line in str(error.value).splitlines()] == norms and len(norms) == 2


def test_many_faults_are_a_bounded_list(model, batch):
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.fill_(float("nan"))
    count = len(list(model.model.parameters()))
    with pytest.raises(NumericsError) as error:
        check_model_on(model, batch)
    lines = str(error.value).splitlines()
    assert lines[20:] == ([f"... and {count - 20} more faults"] if count > 20 else [])


def test_a_module_that_overflows_is_named_and_not_those_behind_it(model_folders, batch):
    """Finite weights, an infinite output: only the place where it arises helps to mend it."""
    model = load_exact(model_folders["neox"])
    name = "gpt_neox.layers.0.mlp.dense_4h_to_h"
    with torch.no_grad():
        model.tracked[name].weight.fill_(1e308)
        model.tracked[name].bias.fill_(1e308)
    with pytest.raises(NumericsError) as error:
        check_model_on(model, batch)
    assert str(error.value) == f"the output of {name} is not finite on this data, and its inputs are"


class FlattenedTokens(torch.nn.Module):
    """As a mixture of experts does: its linear layer sees tokens, not sequences."""

    def __init__(self, layer: torch.nn.Linear):
        super().__init__()
        self.expert = layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.expert(inputs.flatten(0, 1)).view(*inputs.shape[:2], -1)


def test_layers_that_lose_the_token_dimension_are_all_named(model_folders, batch):
    model = load_exact(model_folders["neox"])
    offenders = [name for name in model.tracked if name.endswith("dense_h_to_4h")]
    tracked = dict(model.tracked)
    for name in offenders:
        model.model.set_submodule(name, FlattenedTokens(tracked.pop(name)))
        tracked[f"{name}.expert"] = model.model.get_submodule(f"{name}.expert")
    model = dataclasses.replace(model, tracked=tracked)
    with pytest.raises(ConfigError) as error:
        check_model_on(model, batch)
    rows, columns = batch.inputs.shape
    assert len(error.value.faults) == len(offenders) == 2
    for name, fault in zip(offenders, error.value.faults):
        assert f"layer {name}.expert takes inputs [{rows * columns}, 16], not [{rows}, {columns}, 16]" in fault


def test_a_head_that_overflows_is_told_as_the_loss(model, batch):
    with torch.no_grad():
        model.head.weight.fill_(1e308)
    with pytest.raises(NumericsError, match="the loss is not finite"):
        check_model_on(model, batch)


@pytest.mark.parametrize("strategy", ["ekfac", "kfac", "diagonal", "identity"])
def test_sound_factors_pass(model, strategy):
    check_factors(Factors(strategy, random_factors(model) if strategy != "identity" else {}, {}, ""), model)


def test_broken_factors_are_all_named(model):
    factors = ekfac(model)
    names = list(model.tracked)
    factors.layers[names[0]]["U_A"][0, 0] = float("nan")
    factors.layers[names[1]]["Lambda"] = factors.layers[names[1]]["Lambda"][:, :-1]
    factors.layers[names[2]]["Lambda"][1, 1] = -0.5
    del factors.layers[names[3]]["U_G"]
    with pytest.raises(ConfigError) as error:
        check_factors(factors, model)
    shape = list(model.matrix_shape(names[1]))
    assert len(error.value.faults) == 4
    for expected in (
        f"U_A of {names[0]} is not finite",
        f"Lambda of {names[1]} is {[shape[0], shape[1] - 1]}, the layer needs {shape}",
        f"Lambda of {names[2]} is negative (-0.5)",
        f"U_G of {names[3]} is missing",
    ):
        assert any(expected in fault for fault in error.value.faults)


def test_numbers_alone_are_a_fault_of_numerics_and_rounding_is_none(model):
    factors = ekfac(model)
    name = next(iter(model.tracked))
    factors.layers[name]["Lambda"][0, 0] = -1e-7
    check_factors(factors, model)
    factors.layers[name]["Lambda"][0, 0] = float("inf")
    with pytest.raises(NumericsError, match=f"factor Lambda of {name} is not finite"):
        check_factors(factors, model)


def test_first_bad_layer_follows_the_pass_it_is_given(model, batch):
    names = list(model.tracked)
    run = lambda b: model.hidden(b.inputs)  # noqa: E731
    assert first_bad_layer(model, batch, run) == "the head"
    with torch.no_grad():
        model.tracked[names[2]].weight[0, 0] = float("nan")
    assert first_bad_layer(model, batch, run) == names[2]


def test_no_memory_is_one_line_that_names_the_flags(batch):
    expected = r"^a batch of 2 windows of 16 tokens .*--batch-size \(or --seq-length\)$"
    with pytest.raises(InputError, match=expected), memory_advice(batch):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="another"), memory_advice(batch):
        raise RuntimeError("another")
