"""What a run tells: the lines of iterations that come again are dropped, and only one process writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifguide.engine.arguments import TrainConfig
from ifguide.engine.settings import TrainSettings, resolve
from ifguide.engine.train_log import TrainingLog
from tests.engine.tiny import MODEL, read_log

VALUES = {"iteration": 3, "lm_loss": 1.23456, "lr": 0.001, "grad_norm": 0.5, "tokens_per_second": 1500.0}
VALID = {"iteration": 3, "split": "valid", "lm_loss": 2.0, "perplexity": 7.389, "tokens": 96}


def settings(folder: Path, **values: Any) -> TrainSettings:
    return resolve(TrainConfig(**MODEL, data_path="data", save=str(folder), **values))


def test_one_line_for_people_and_one_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(settings(tmp_path), train_iters=100, first_iteration=1, writes=True)
    log.iteration(VALUES, seconds_left=90.0)
    log.validation(VALID)
    log.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("iteration   3/100 | lm_loss 1.2346 | lr 1.000e-03 | grad_norm 0.500 | ")
    assert "penalty_ce" not in first, "of a run without a penalty"
    assert second == "iteration 3 | valid lm_loss 2.0000 | perplexity 7.39 | 96 tokens"
    rows = read_log(tmp_path)
    assert [{key: value for key, value in row.items() if key != "time"} for row in rows] == [VALUES, VALID]


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    """NaN is no JSON: half the readers of the log would stop there."""
    log = TrainingLog(settings(tmp_path), 100, 1, writes=True)
    with pytest.raises(ValueError, match="JSON"):
        log.iteration({**VALUES, "lm_loss": float("nan")}, 0.0)
    log.close()
    assert read_log(tmp_path) == []


def test_lines_that_come_again_are_dropped(tmp_path: Path) -> None:
    """A killed run has logged beyond its checkpoint of iteration 3, and half a line."""
    rows = [{"iteration": number, "lm_loss": 1.0} for number in (1, 2, 3, 4, 5)]
    rows.insert(3, {"iteration": 3, "split": "valid", "lm_loss": 2.0})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train_log.jsonl").write_text(text + '{"iteration": 6, "lm_lo')
    TrainingLog(settings(tmp_path), 100, first_iteration=4, writes=True).close()
    assert read_log(tmp_path) == rows[:4]


def test_the_other_processes_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train_log.jsonl").write_text('{"iteration": 9}\n')
    log = TrainingLog(settings(tmp_path, tensorboard_dir=str(tmp_path / "tb")), 100, 1, writes=False)
    log.say("hello")
    log.iteration(VALUES, 0.0)
    log.validation(VALID)
    log.close()
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["train_log.jsonl"]
    assert read_log(tmp_path) == [{"iteration": 9}]
