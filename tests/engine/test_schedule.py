"""The learning rate against the formula of NeoX written out, and the iterations that are saved."""

from __future__ import annotations

import math

import pytest

from ifguide.engine.arguments import TrainConfig
from ifguide.engine.schedule import learning_rate, saves_at
from ifguide.engine.settings import TrainSettings, resolve
from tests.engine.tiny import MODEL


def configuration(**values: object) -> TrainSettings:
    defaults = {**MODEL, "optimizer": {"type": "Adam", "params": {"lr": 1.0}}, "warmup": 0.1, "min_lr": 0.05}
    del defaults["lr_decay_style"]
    return resolve(TrainConfig(**{**defaults, **values}))


@pytest.mark.parametrize("style", ["constant", "linear", "cosine", "exponential"])
def test_closed_form(style: str) -> None:
    """100 iterations, 10 of warm-up, as an explicit table of NeoX's AnnealingLR."""
    config = configuration(lr_decay_style=style)
    for finished in range(100):
        if finished <= 10:
            expected = max(1, finished) / 10
        else:
            share = (finished - 10) / 90
            expected = {
                "constant": 1.0,
                "linear": 1 - share,
                "cosine": 0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2,
                "exponential": math.exp(-0.693 * share),
            }[style]
            expected = max(expected, 0.05)
        assert learning_rate(config, 100, finished + 1) == pytest.approx(expected, rel=1e-12)


def test_never_above_the_maximum_nor_below_the_minimum() -> None:
    for warmup in (0.0, 0.001, 0.5, 1.0):
        for decay in (5, 20, 40):
            config = configuration(warmup=warmup, lr_decay_iters=decay, lr_decay_style="cosine")
            rates = [learning_rate(config, 20, iteration) for iteration in range(1, 21)]
            assert max(rates) <= 1.0
            rising = warmup * decay
            assert all(rate >= 0.05 for done, rate in enumerate(rates) if done > rising)


def test_after_the_decay_the_minimum_holds() -> None:
    config = configuration(lr_decay_fraction=0.5, lr_decay_style="cosine")
    assert learning_rate(config, 100, 90) == 0.05


def test_saved_iterations() -> None:
    def saved(**values: object) -> list[int]:
        config = configuration(**values)
        return [iteration for iteration in range(1, 101) if saves_at(config, 100, iteration)]

    assert saved(checkpoint_factor=30) == [30, 60, 90, 100]
    assert saved(checkpoint_factor=2, checkpoint_scale="log") == [1, 2, 4, 8, 16, 32, 64, 100]
    assert saved(extra_save_iters=[3]) == [3, 100]
