"""One batch, timed: what counts is the median after a turn that warms up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.influence.options import Method
from ifguide.influence.planning import timing
from ifguide.influence.planning import work as plan_work
from ifguide.influence.planning.shape import read_shape
from ifguide.influence.windows import cut
from ifguide.models.tracked import load_model
from tests.influence.conftest import EOD, WINDOW


def test_the_first_turn_and_an_odd_one_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    took, turns = [100.0, 3.0, 50.0, 4.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: sum(turns))
    assert timing._median(lambda: turns.append(took[len(turns)]), torch.device("cpu")) == 4.0
    assert turns == took


@pytest.mark.parametrize("method", [Method(method="jvp"), Method(method="jvp", rank=2)], ids=["whole", "low rank"])
def test_rates_are_of_the_batch_that_was_timed(model_folders, dataset, monkeypatch, method) -> None:
    """Two seconds for every measurement: the rates follow from what the batch holds."""
    ran = []
    monkeypatch.setattr(timing, "_median", lambda run, device: ran.append(run()) or 2.0)
    model = load_model(model_folders["neox"], device="cpu")
    batch = cut(dataset, EOD, WINDOW, 4).batch(np.arange(3))
    shape = read_shape(model_folders["neox"], None, dataset.prefix)
    found = timing.time_batch(model, shape, batch, method, directions=2)
    scored, (rows, columns) = int(batch.labelled.sum()), batch.inputs.shape
    operations = plan_work.scoring(shape, plan_work.of_batch(scored, rows, columns), method, 2)
    assert (found.rows, found.columns, found.seconds) == (rows, columns, 2.0)
    assert found.tokens_per_second == scored / 2 and scored < rows * columns
    assert found.operations_per_second == operations / 2
    assert found.eigen_seconds_per_cube == 2.0 / 512**3
    assert len(ran) == 2, "the pass and the eigendecomposition"
