"""Which weights directions are computed with."""

from __future__ import annotations

import contextlib

import torch

from ifguide.influence.backward import precision
from ifguide.influence.backward.precision import in_full_precision
from ifguide.models.placement import waiting_on_host
from ifguide.models.tracked import load_model, track_only


def test_full_precision_is_used_as_it_is(model):
    with in_full_precision(model, lambda: 1 / 0) as exact:
        assert exact is model


def test_half_precision_waits_on_the_host_while_full_weights_are_there(model_folders, monkeypatch):
    half = load_model(model_folders["neox"], torch.bfloat16, device="cpu")
    half = track_only(half, list(half.tracked)[-1:])
    happened = []
    weights = half.head.weight.clone()

    @contextlib.contextmanager
    def waiting(model):
        happened.append("away")
        with waiting_on_host(model):
            yield
        happened.append("back")

    monkeypatch.setattr(precision, "waiting_on_host", waiting)

    def load():
        happened.append("load")
        return load_model(model_folders["neox"], device="cpu")

    with in_full_precision(half, load) as exact:
        happened.append("use")
        assert exact.dtype == torch.float32 and list(exact.tracked) == list(half.tracked)
    assert happened == ["away", "load", "use", "back"]
    assert half.model.dtype == torch.bfloat16 and torch.equal(half.head.weight, weights)
