"""One signed pass against one backward per query, and what it leaves on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.influence import direction as direction_module
from ifguide.influence.backward.gradients import blocks_run_again, go_back, gradients_to
from ifguide.influence.batches import collate
from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import compute_directions, mean_gradient, signed_gradient
from ifguide.influence.options import Damping
from ifguide.influence.queries import make_query
from tests.influence import reference
from tests.influence.conftest import EOD


def _queries(seed, weights=(1.0, 0.5, 3.0)):
    rng = np.random.default_rng(seed)
    return [
        make_query(rng.integers(1, 256, 1 + n), rng.integers(1, 256, 2 + 3 * n), EOD, weight)
        for n, weight in enumerate(weights)
    ]


def _literal_mean(model, queries):
    reference.track(model)
    each = [reference.gradient(model, reference.query_loss(model, query)) for query in queries]
    total = sum(query.weight for query in queries)
    return {name: sum(q.weight * g[name] for q, g in zip(queries, each)) / total for name in model.tracked}


@pytest.mark.parametrize("bound", [1, 20, 4096])
def test_one_signed_pass_equals_one_backward_per_query(model, bound, monkeypatch):
    """Toxic minus safe, each a weighted mean, whatever the micro-batches."""
    monkeypatch.setattr(direction_module, "BACKWARD_TOKENS", bound)
    toxic, safe = _queries(0), _queries(1, (2.0, 1.0, 1.0, 0.25))
    found = signed_gradient(model, [(toxic, 1.0), (safe, -1.0)], 10_000)
    g_toxic, g_safe = _literal_mean(model, toxic), _literal_mean(model, safe)
    for name in model.tracked:
        torch.testing.assert_close(found[name], g_toxic[name] - g_safe[name], rtol=1e-9, atol=1e-11)


def test_no_pass_has_more_tokens_than_the_bound(model, monkeypatch):
    seen = []
    monkeypatch.setattr(direction_module, "BACKWARD_TOKENS", 20)
    monkeypatch.setattr(direction_module, "go_back", lambda _, batch, weights: seen.append(tuple(batch.inputs.shape)))
    queries = _queries(0, (1.0,) * 4)
    mean_gradient(model, queries, 10_000)
    assert sum(rows for rows, _ in seen) == len(queries) and len(seen) > 1
    assert all(rows == 1 or rows * columns <= 20 for rows, columns in seen)


def test_a_shared_set_is_gone_through_once(model, monkeypatch):
    """Two behaviours with the same safe queries: three sets, each of whose queries meets the model once."""
    seen = []
    real = direction_module.go_back

    def watched(model, batch, weights):
        seen.append(len(weights))
        return real(model, batch, weights)

    monkeypatch.setattr(direction_module, "go_back", watched)
    first, second, safe = _queries(0), _queries(1, (1.0, 1.0)), _queries(2)
    factors = Factors("identity", {name: {} for name in model.tracked}, {}, "")
    found = compute_directions(model, factors, [(first, safe), (second, safe)], Damping(0.1), 512)
    assert sum(seen) == len(first) + len(second) + len(safe)
    g_safe = _literal_mean(model, safe)
    for direction, toxic in zip(found, (first, second)):
        g_toxic = _literal_mean(model, toxic)
        for name in model.tracked:
            torch.testing.assert_close(direction[name], g_toxic[name] - g_safe[name], rtol=1e-9, atol=1e-11)


def test_gradients_leave_one_at_a_time_and_nothing_stays(model):
    queries = _queries(0)
    batch = collate([query.inputs for query in queries], [query.labels for query in queries])
    parameters = [p for layer in model.tracked.values() for p in (layer.weight, layer.bias) if p is not None]
    taken = []

    def take(name, is_bias, gradient):
        assert sum(p.grad is not None for p in parameters) == 1
        taken.append((name, is_bias, tuple(gradient.shape)))

    forwards = [block.forward for block in model.model.base_model.children()]
    with gradients_to(model, take), blocks_run_again(model):
        go_back(model, batch)
    expected = {(name, False, tuple(layer.weight.shape)) for name, layer in model.tracked.items()}
    expected |= {(n, True, tuple(layer.bias.shape)) for n, layer in model.tracked.items() if layer.bias is not None}
    assert set(taken) == expected and len(taken) == len(expected)
    assert all(p.grad is None and not p.requires_grad for p in model.model.parameters())
    assert [block.forward for block in model.model.base_model.children()] == forwards
    assert not any("forward" in vars(module) for module in model.model.modules())


def test_running_blocks_again_changes_nothing(model):
    queries = _queries(0)
    batch = collate([query.inputs for query in queries], [query.labels for query in queries])

    def gradients(*contexts):
        found = {}
        with gradients_to(model, lambda name, is_bias, g: found.update({(name, is_bias): g.clone()})):
            if contexts:
                with contexts[0]:
                    return go_back(model, batch), found
            return go_back(model, batch), found

    (loss, again), (plain_loss, plain) = gradients(blocks_run_again(model)), gradients()
    assert loss == plain_loss and plain.keys() == again.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(again[key], gradient, rtol=0, atol=0)


def test_blocks_keep_their_inputs_alone(model):
    """What autograd keeps at the end of the forward pass: less than half of it, with two blocks."""
    queries = _queries(0)
    batch = collate([query.inputs for query in queries], [query.labels for query in queries])

    def kept(run_again):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with gradients_to(model, lambda *_: None), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            if run_again:
                with blocks_run_again(model):
                    model.hidden(batch.inputs)
            else:
                model.hidden(batch.inputs)
        weights = {p.untyped_storage()._cdata for p in model.model.parameters()}
        return sum(size for key, size in sizes.items() if key not in weights)

    assert kept(run_again=True) < 0.5 * kept(run_again=False)
