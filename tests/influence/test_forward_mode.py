"""(M2) against one backward pass per token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.influence.documents import cut
from ifguide.influence.forward_mode import first_bad_layer, token_scores

from . import reference
from .conftest import EOD, WINDOW, load_exact


def _direction(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(model.matrix_shape(name), generator=generator, dtype=torch.float64) for name in model.tracked
    }


def _scores(model, direction, windows, which):
    """Flat scores of the windows, in the order of `places`."""
    batch = windows.batch(np.array(which))
    return token_scores(model, model.split_bias(direction), batch)[batch.labelled]


@pytest.mark.parametrize("architecture", ["neox", "llama", "gpt2"])
def test_equals_one_backward_per_token(model_folders, dataset, architecture):
    model = load_exact(model_folders[architecture])
    direction, windows = _direction(model), cut(dataset, EOD, WINDOW, 4)
    reference.track(model)
    for window in (0, 2, len(windows) - 1):
        found = _scores(model, direction, windows, [window])
        batch = windows.batch(np.array([window]))
        labels = batch.labels[0]
        losses = reference.losses(model, batch.inputs[0], labels.clamp(min=0))[batch.labelled[0]]
        expected = torch.tensor(
            [reference.dot(direction, reference.gradient(model, loss)) for loss in losses], dtype=torch.float64
        )
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-10)


def test_sum_over_tokens_is_the_sequence_gradient(model, dataset):
    direction, windows = _direction(model), cut(dataset, EOD, WINDOW, 4)
    reference.track(model)
    batch = windows.batch(np.array([0]))
    total = reference.losses(model, batch.inputs[0], batch.labels[0]).sum()
    expected = reference.dot(direction, reference.gradient(model, total))
    assert float(_scores(model, direction, windows, [0]).sum()) == pytest.approx(expected, rel=1e-8)


def test_batch_and_padding_do_not_matter(model, dataset):
    direction, windows = _direction(model), cut(dataset, EOD, WINDOW, 4)
    alone = torch.cat([_scores(model, direction, windows, [window]) for window in range(len(windows))])
    together = _scores(model, direction, windows, range(len(windows)))
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)


def test_other_documents_do_not_matter(model, dataset):
    windows = cut(dataset, EOD, WINDOW, 4)
    direction = _direction(model)
    pair = _scores(model, direction, windows, [0, 5])
    torch.testing.assert_close(
        pair[: windows.scored[0]], _scores(model, direction, windows, [0]), rtol=1e-9, atol=1e-11
    )


def test_a_subset_of_layers(model_folders, dataset):
    """Attention must cope with queries and keys that have no tangent (first block, only the MLP tracked)."""
    full = load_exact(model_folders["llama"])
    part = load_exact(model_folders["llama"], pattern=r"mlp|v_proj")
    windows = cut(dataset, EOD, WINDOW, 4)
    direction = _direction(full)
    zeroed = {name: matrix if name in part.tracked else 0 * matrix for name, matrix in direction.items()}
    expected = _scores(full, zeroed, windows, [1])
    found = _scores(part, {name: direction[name] for name in part.tracked}, windows, [1])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_the_first_bad_layer_is_named(model, dataset):
    direction, windows = _direction(model), cut(dataset, EOD, WINDOW, 4)
    name = list(model.tracked)[5]
    direction[name][0, 0] = float("nan")
    assert first_bad_layer(model, model.split_bias(direction), windows.batch(np.array([0]))) == name
