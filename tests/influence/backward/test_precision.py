"""Which weights directions are computed with."""

from __future__ import annotations

import torch

from ifguide.influence.backward.precision import in_full_precision
from ifguide.models.tracked import load_model, track_only


def test_full_precision_is_used_as_it_is(model):
    with in_full_precision(model, lambda: 1 / 0) as exact:
        assert exact is model


def test_half_precision_waits_on_the_host_while_full_weights_are_there(model_folders, monkeypatch):
    half = load_model(model_folders["neox"], torch.bfloat16, device="cpu")
    half = track_only(half, list(half.tracked)[-1:])
    happened = []
    moves = type(half.model).to
    monkeypatch.setattr(type(half.model), "to", lambda self, to: happened.append(str(to)) or moves(self, to))

    def load():
        happened.append("load")
        return load_model(model_folders["neox"], device="cpu")

    with in_full_precision(half, load) as exact:
        happened.append("use")
        assert exact.dtype == torch.float32 and list(exact.tracked) == list(half.tracked)
    assert [what for what in happened if what != "cpu"] == ["load", "use"]
    assert happened[0] == happened[-1] == "cpu" and half.model.dtype == torch.bfloat16
