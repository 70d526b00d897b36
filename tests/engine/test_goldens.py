"""Training computes what it computed when the losses were recorded, on any machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.goldens import RECORD, RUNS, keys, told, write_data
from tests.engine.tiny import deepy, write_configuration

GOLDENS = json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("goldens")
    write_data(folder)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_the_losses_are_the_recorded_ones(name: str, data: Path, train: Callable[..., int], tmp_path: Path) -> None:
    values = keys(data, name, tmp_path / "out")
    if "num_gpus" in values:
        assert deepy(write_configuration(tmp_path, **values), tmp_path).returncode == 0
    else:
        assert train(**values) == 0
    found = told(tmp_path / "out")
    assert found.keys() == GOLDENS[name].keys()
    for number, recorded in GOLDENS[name].items():
        assert found[number] == pytest.approx(recorded, rel=1e-5), number


def test_the_runs_differ() -> None:
    """A record that is the same for every run would hold nothing."""
    objectives = [run.get("objective", run["lm_loss"])[-1] for run in GOLDENS.values()]
    assert len({round(value, 3) for value in objectives[:4]}) == 4
    # accumulation, ZeRO and processes change how, not what
    assert objectives[4:] == pytest.approx([objectives[1]] * 3, rel=1e-5)
