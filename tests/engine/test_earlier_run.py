"""What a folder says of the run that it holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.earlier_run import earlier_run
from ifguide.system.run_folder import Earlier
from tests.support.datasets import random_documents, write_tokens

KEYS = {"train_iters": 6, "data_path": "data"}


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenDataset:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_tokens(tmp_path / "data", random_documents([4, 7]))


def save_folder(tmp_path: Path, record: Any = None) -> str:
    """A folder with a checkpoint, and the record of its run."""
    (tmp_path / "out" / "global_step6").mkdir(parents=True)
    (tmp_path / "out" / "latest").write_text("global_step6")
    if record is not None:
        (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    return str(tmp_path / "out")


def record(tmp_path: Path, tokens: TokenDataset, **inputs: Any) -> dict[str, Any]:
    read = {"tokens": {tokens.prefix: fingerprint(tokens)}, "penalties": {}, **inputs}
    return {"config": KEYS, "folder": str(tmp_path), "train_iters": 6, "inputs": read}


def test_no_checkpoint_is_no_run(tmp_path: Path) -> None:
    assert earlier_run(None) is None
    assert earlier_run(str(tmp_path / "nowhere")) is None
    (tmp_path / "run.json").write_text(json.dumps({"config": KEYS}))
    assert earlier_run(str(tmp_path)) is None


def test_the_record_tells(tmp_path: Path, tokens: TokenDataset) -> None:
    """A key that the record does not name, being older, had its default."""
    found = earlier_run(save_folder(tmp_path, record(tmp_path, tokens)))
    assert found == Earlier({**asdict(TrainConfig()), **KEYS}, tmp_path, 6, [])


@pytest.mark.parametrize("written", [None, [], {"config": None}, {"train_iters": 6}])
def test_a_checkpoint_that_nothing_describes(tmp_path: Path, written: Any) -> None:
    assert earlier_run(save_folder(tmp_path, written)) == Earlier(None, Path.cwd(), None)


def test_a_record_of_half_a_file(tmp_path: Path) -> None:
    save = save_folder(tmp_path, {"config": KEYS})
    (tmp_path / "out" / "run.json").write_text('{"config": {')
    assert earlier_run(save) == Earlier(None, Path.cwd(), None)


def test_data_that_changed_or_is_gone(tmp_path: Path, tokens: TokenDataset) -> None:
    """Tokens and masks alike; what is still the same is not named."""
    other = write_tokens(tmp_path / "mask", random_documents([4, 7], seed=1))
    gone = write_tokens(tmp_path / "gone", random_documents([4, 7], seed=2))
    penalties = {one.prefix: fingerprint(one) for one in (other, gone)}
    save = save_folder(tmp_path, record(tmp_path, tokens, penalties=penalties))
    write_tokens(tmp_path / "mask", random_documents([4, 7], seed=3))
    (tmp_path / "gone.bin").unlink()
    found = earlier_run(save)
    assert found is not None
    assert found.changed == [f"{tmp_path / name} has changed since" for name in ("mask", "gone")]
