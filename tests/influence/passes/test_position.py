"""Position scores against a loop over positions and against kronfluence's own per-token scores."""

from __future__ import annotations

import gc
import logging
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError
from ifguide.influence.batches import NO_LABEL, Batch
from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import precondition
from ifguide.influence.options import Damping
from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.passes.low_rank import truncate
from ifguide.influence.passes.position import PositionPass
from ifguide.influence.windows import cut
from ifguide.models.tracked import ScoredModel, label_losses, load_model
from tests.influence import reference
from tests.influence.conftest import EOD, WINDOW, load_exact
from tests.influence.reference import random_direction


def _all_windows(dataset):
    windows = cut(dataset, EOD, WINDOW, 4)
    return windows.batch(np.arange(len(windows)))


def test_equals_a_loop_over_positions(model_folders, dataset):
    """Also in windows with a context: the loop counts the context's losses, which must not matter."""
    batch = _all_windows(dataset)
    for folder in model_folders.values():
        model = load_exact(folder)
        direction = random_direction(model)
        found = PositionPass(model, [direction]).scores(batch)[0]
        reference.track(model)
        for row in (0, 2, len(found) - 1):
            length = int(batch.real[row].sum())
            inputs, labels = batch.inputs[row, :length], batch.labels[row, :length].clone()
            context = labels == NO_LABEL
            labels[context] = inputs[1:][context[:-1]]
            expected = torch.tensor(reference.position_scores(model, direction, inputs, labels), dtype=torch.float64)
            labelled = batch.labelled[row]
            torch.testing.assert_close(found[row][labelled], expected[~context], rtol=1e-9, atol=1e-10)
            assert (found[row][~labelled] == 0).all()


def test_nothing_of_a_pass_waits_for_the_interpreter_to_look_for_circles(model, dataset):
    """Its graph is as large as all activations: the next batch needs its room."""
    batch, outputs = _all_windows(dataset), []
    for layer in model.tracked.values():
        layer.register_forward_hook(lambda module, inputs, output: outputs.append(weakref.ref(output)))
    scorer = PositionPass(model, [random_direction(model)])
    gc.collect()
    gc.disable()
    try:
        scorer.scores(batch)
        assert len(outputs) == len(model.tracked) and not [1 for output in outputs if output() is not None]
    finally:
        gc.enable()


def test_results_do_not_depend_on_the_token_bound(model, dataset, monkeypatch):
    batch, direction = _all_windows(dataset), random_direction(model)
    whole = PositionPass(model, [direction]).scores(batch)
    for bound in (1, 3 * WINDOW):
        monkeypatch.setattr("ifguide.influence.batches.BACKWARD_TOKENS", bound)
        pieces = batch.pieces(backward=True)
        assert len(pieces) > 1 and all(len(p.inputs) == 1 or p.inputs.numel() <= bound for p in pieces)
        found = PositionPass(model, [direction]).scores(batch)
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)


def test_sums_to_the_same_sequence_score_as_loss_term(model, dataset):
    windows = cut(dataset, EOD, WINDOW, 4)
    whole = np.flatnonzero(windows.begin + windows.lengths == windows.scored)  # no context
    batch = windows.batch(whole)
    directions = [random_direction(model), random_direction(model, 2)]
    found, expected = (scoring(model, directions).scores(batch) for scoring in (PositionPass, ForwardModePass))
    torch.testing.assert_close(found.sum(dim=2), expected.sum(dim=2), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, expected, rtol=0.1)


def test_several_directions_equal_single_ones(model, dataset):
    """Enough of them that both ways to keep a layer's part are taken."""
    batch = _all_windows(dataset)
    directions = [random_direction(model, seed) for seed in range(3)]
    together = PositionPass(model, directions).scores(batch)
    for direction, scores in zip(directions, together, strict=True):
        alone = PositionPass(model, [direction]).scores(batch)[0]
        torch.testing.assert_close(scores, alone, rtol=1e-10, atol=1e-10)


def test_low_rank_directions(model, dataset):
    batch = _all_windows(dataset)
    low = [truncate(random_direction(model, seed), 3)[0] for seed in (1, 2)]
    dense = [{name: matrix.dense() for name, matrix in direction.items()} for direction in low]
    found, expected = (PositionPass(model, directions).scores(batch) for directions in (low, dense))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_batch_and_padding_do_not_matter(model, dataset):
    windows = cut(dataset, EOD, WINDOW, 4)
    scoring = PositionPass(model, [random_direction(model)])
    together = scoring.scores(_all_windows(dataset))[0]
    for window in range(len(windows)):
        alone = scoring.scores(windows.batch(np.array([window])))[0, 0]
        torch.testing.assert_close(together[window, : len(alone)], alone, rtol=1e-9, atol=1e-10)


def test_a_subset_of_layers(model_folders, dataset):
    full, part = load_exact(model_folders["llama"]), load_exact(model_folders["llama"], pattern=r"1\.mlp|v_proj")
    batch, direction = _all_windows(dataset), random_direction(full)
    zeroed = {name: matrix if name in part.tracked else 0 * matrix for name, matrix in direction.items()}
    expected = PositionPass(full, [zeroed]).scores(batch)
    found = PositionPass(part, [{name: direction[name] for name in part.tracked}]).scores(batch)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_weights_get_no_gradient_and_hooks_go(model, dataset):
    PositionPass(model, [random_direction(model)]).scores(_all_windows(dataset))
    for parameter in model.model.parameters():
        assert parameter.grad is None and not parameter.requires_grad
    assert not any(layer._forward_hooks for layer in model.tracked.values())


def test_bfloat16_is_close(model_folders, dataset):
    batch = _all_windows(dataset)
    half, exact = load_model(model_folders["neox"], dtype=torch.bfloat16), load_exact(model_folders["neox"])
    direction = random_direction(exact)
    found, expected = (PositionPass(m, [direction]).scores(batch)[0] for m in (half, exact))
    assert found.dtype == torch.float32
    pair = torch.stack([found[batch.labelled].double(), expected[batch.labelled]])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.97


def test_layers_without_a_token_dimension_are_all_named(model, dataset):
    names = list(model.tracked)[2:4]
    for name in names:

        class Flat(torch.nn.Module):
            def __init__(self, layer):
                super().__init__()
                self.layer = layer

            def forward(self, x):
                return self.layer(x.flatten(0, -2)).unflatten(0, x.shape[:-1])

        model.model.set_submodule(name, Flat(model.tracked[name]))
    with pytest.raises(ConfigError) as error:
        PositionPass(model, [random_direction(model)]).scores(_all_windows(dataset))
    assert len(error.value.faults) == 2
    for name, fault in zip(names, error.value.faults, strict=True):
        assert name in fault and "[batch, tokens, features]" in fault


def test_the_first_bad_layer_is_named(model, dataset):
    batch, scoring = _all_windows(dataset), PositionPass(model, [random_direction(model)])
    assert scoring.first_bad_layer(batch) == "the head"
    name = list(model.tracked)[5]
    model.tracked[name].weight[0, 0] = float("inf")
    assert scoring.first_bad_layer(batch) == name


class _Rows(torch.utils.data.Dataset):
    """Full windows for kronfluence, each with the weight of its loss."""

    def __init__(self, seed: int, weights: list[float]):
        rng = np.random.default_rng(seed)
        self.tokens = torch.from_numpy(rng.integers(1, 256, (len(weights), WINDOW + 1)))
        self.weights = weights

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = self.tokens[index]
        return {"inputs": tokens[:-1], "labels": tokens[1:], "weight": self.weights[index]}


def _kronfluence(scored: ScoredModel, strategy: str, queries: _Rows, rows: _Rows, output) -> tuple[torch.Tensor, dict]:
    """Its per-token scores [B, T] of ``rows`` for the summed gradient of ``queries``, and its factors; in fp64."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.task import Task
    from kronfluence.utils.common.score_arguments import pytest_score_arguments

    class Weighted(Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits = model(batch["inputs"], use_cache=False).logits
            losses = label_losses(logits.flatten(0, 1), batch["labels"].flatten()).view(batch["labels"].shape)
            return (losses.sum(dim=1) * batch["weight"]).sum()

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self):
            return list(scored.tracked)

    names, task = list(scored.tracked), Weighted()
    dtypes = ("activation_covariance_dtype", "gradient_covariance_dtype", "per_sample_gradient_dtype", "lambda_dtype")
    factor_arguments = FactorArguments(
        strategy=strategy, use_empirical_fisher=True, **dict.fromkeys(dtypes, torch.float64)
    )
    score_arguments = pytest_score_arguments(damping_factor=None)
    score_arguments.aggregate_query_gradients = True
    score_arguments.compute_per_token_scores = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its use of an old torch name
        prepared = prepare_model(scored.model, task)
        analyzer = Analyzer(
            "test", prepared, task, cpu=True, log_level=logging.ERROR, disable_tqdm=True, output_dir=str(output)
        )
        analyzer.fit_all_factors("f", rows, per_device_batch_size=len(rows), factor_args=factor_arguments)
        analyzer.compute_pairwise_scores(
            "s", "f", queries, rows, len(queries), per_device_train_batch_size=len(rows), score_args=score_arguments
        )
        scores = analyzer.load_pairwise_scores("s")["all_modules"][0]
        if strategy == "identity":
            return scores, {name: {} for name in names}
        found = analyzer.load_all_factors("f")
    layers = {
        name: {
            "U_A": found["activation_eigenvectors"][name],
            "U_G": found["gradient_eigenvectors"][name],
            "Lambda": found["lambda_matrix"][name] / found["num_lambda_processed"][name],
        }
        for name in names
    }
    return scores, layers


@pytest.mark.parametrize(("strategy", "architectures"), [("identity", None), ("ekfac", ["neox"])])
def test_equals_kronfluence(tmp_path, model_folders, strategy, architectures):
    """Its per-token scores for the same queries (toxic +, safe -), its own factors and damping included."""
    queries, rows = _Rows(1, [1.0, 1.0, -0.5, -1.5]), _Rows(2, [1.0] * 5)
    for name in architectures or model_folders:
        expected, layers = _kronfluence(load_exact(model_folders[name]), strategy, queries, rows, tmp_path / name)
        model = load_exact(model_folders[name])
        reference.track(model)
        margin = sum(
            row["weight"] * reference.losses(model, row["inputs"], row["labels"]).sum()
            for row in (queries[i] for i in range(len(queries)))
        )
        direction = precondition(reference.gradient(model, margin), Factors(strategy, layers, {}, ""), Damping(0.1))
        model.model.requires_grad_(False)
        batch = Batch(rows.tokens[:, :-1], rows.tokens[:, 1:], torch.ones(len(rows), WINDOW, dtype=torch.bool))
        found = PositionPass(model, [direction]).scores(batch)[0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
