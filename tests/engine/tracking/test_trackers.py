"""TensorBoard and W&B: what they are told, under GPT-NeoX's names, by stubs in their place; and what is missing.

What the real packages keep of it is read back from their files. W&B is in no extra: its test runs where it is there.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ifguide.engine.arguments import TrainConfig
from ifguide.engine.tracking import trackers
from ifguide.engine.tracking.trackers import name_of, tracker_faults
from ifguide.engine.train_log import TrainingLog
from tests.engine.test_train_log import VALID, VALUES, settings

TOLD = {
    "train/lm_loss": 1.23456,
    "train/learning_rate": 0.001,
    "train/grad_norm": 0.5,
    "runtime/tokens_per_sec": 1500.0,
}
VALIDATED = {"validation/lm_loss": 2.0, "validation/perplexity": 7.389, "validation/tokens": 96}


class StubOfWandb(types.ModuleType):
    """A stand-in for the package wandb that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0
        self.refuses = ""

    def init(self, **about: Any) -> StubOfWandb:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.begun.append(about)
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


class StubOfSummaryWriter:
    """A stand-in for TensorBoard's writer that keeps what it is told."""

    made: ClassVar[list[StubOfSummaryWriter]] = []

    def __init__(self, log_dir: str, purge_step: int):
        self.log_dir, self.purge_step, self.closed = log_dir, purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        StubOfSummaryWriter.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StubOfWandb:
    stub = StubOfWandb()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    return stub


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[StubOfSummaryWriter]:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = StubOfSummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    StubOfSummaryWriter.made = []
    return StubOfSummaryWriter.made


def log_everything(folder: Path, **keys: Any) -> None:
    log = TrainingLog(settings(folder, **keys), 100, first_iteration=4, writes=True)
    log.iteration(VALUES, 0.0)
    log.validation(VALID)
    log.close()


def test_wandb_is_told_under_the_names_of_gpt_neox(tmp_path: Path, wandb: StubOfWandb) -> None:
    log_everything(
        tmp_path, use_wandb=True, wandb_project="p", wandb_group="g", wandb_run_name="r", wandb_team="t",
        wandb_host="https://wandb.example",
    )  # fmt: skip
    (begun,) = wandb.begun
    assert {key: begun[key] for key in ("project", "group", "name", "entity")} == {
        "project": "p", "group": "g", "name": "r", "entity": "t",
    }  # fmt: skip
    assert begun["config"]["num_layers"] == 2 and trackers.os.environ["WANDB_BASE_URL"] == "https://wandb.example"
    assert wandb.logged == [(3, TOLD), (3, VALIDATED)] and wandb.finished == 1


def test_a_refusal_of_wandb_ends_no_training(tmp_path: Path, wandb: StubOfWandb, capsys: Any) -> None:
    wandb.refuses = "no API key\nand more"
    log_everything(tmp_path, use_wandb=True)
    assert "W&B is left out: no API key (`wandb login`, or WANDB_MODE=offline)\n" in capsys.readouterr().out
    assert not wandb.logged and (tmp_path / "train_log.jsonl").read_text().count("\n") == 2


def test_tensorboard_is_told_the_same(tmp_path: Path, writers: list[StubOfSummaryWriter]) -> None:
    log_everything(tmp_path, tensorboard_dir="board")
    (writer,) = writers
    assert (writer.log_dir, writer.purge_step, writer.closed) == ("board", 4, True)
    assert writer.scalars == [(name, value, 3) for name, value in {**TOLD, **VALIDATED}.items()]


def test_tensorboard_keeps_it(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log_everything(tmp_path, tensorboard_dir=str(tmp_path / "board"))
    kept = events.EventAccumulator(str(tmp_path / "board")).Reload()
    found = {name: [(point.step, point.value) for point in kept.Scalars(name)] for name in kept.Tags()["scalars"]}
    assert found == {name: [(3, pytest.approx(value))] for name, value in {**TOLD, **VALIDATED}.items()}


def test_wandb_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="W&B is an optional package of users, in no extra")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    log_everything(tmp_path, use_wandb=True, wandb_project="p", wandb_group="g", wandb_run_name="r")
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    run, rows = wandb_records(path)
    assert (run.project, run.run_group, run.display_name) == ("p", "g", "r")
    told: dict[str, Any] = {}
    for step, row in rows:
        assert step == 3
        told |= {name: value for name, value in row.items() if not name.startswith("_")}
    assert told == {**TOLD, **VALIDATED}


def wandb_records(path: Path) -> tuple[Any, list[tuple[int, dict[str, float]]]]:
    """The run, and (step, numbers) of each row of its history, in a file that W&B writes offline."""
    from wandb.proto.wandb_internal_pb2 import Record

    run, rows = None, []
    for data in leveldb_records(path.read_bytes()):
        record = Record.FromString(data)
        if record.HasField("run"):
            run = record.run
        if record.HasField("history"):
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append((record.history.step.num, items))
    return run, rows


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """LevelDB's log format behind 7 bytes of W&B: blocks of 32 KiB; pieces: checksum (4), length (2), kind (1)."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # what is left of a block is too short for a piece
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of a record, its end; 2 and 3: its beginning, its middle
            yield whole
            whole = b""


def test_nothing_is_asked_for_by_default(tmp_path: Path, wandb: StubOfWandb, writers: list) -> None:
    log_everything(tmp_path)
    assert not wandb.begun and not writers


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert list(tracker_faults(TrainConfig())) == []
    faults = list(tracker_faults(TrainConfig(tensorboard_dir="x", use_wandb=True)))
    assert [fault.split(":")[0] for fault in faults] == ["tensorboard_dir", "use_wandb"]
    assert all("is not installed; install it, or leave the key out" in fault for fault in faults)


@pytest.mark.parametrize(
    ("group", "key", "name"),
    [
        ("train", "lr", "train/learning_rate"), ("valid", "lm_loss", "validation/lm_loss"),
        ("test", "lm_loss", "test/lm_loss"),
    ],
)  # fmt: skip
def test_names(group: str, key: str, name: str) -> None:
    assert name_of(group, key) == name
