"""Training from anywhere: the checkout's deepy.py in another folder, and a package without a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.goldens import keys, write_data
from tests.engine.tiny import write_configuration

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("installed", [False, True])
def test_training_starts_in_a_folder_without_train_py(tmp_path: Path, installed: bool) -> None:
    packages = ROOT
    if installed:
        packages = tmp_path / "packages"
        shutil.copytree(ROOT / "ifguide", packages / "ifguide", ignore=shutil.ignore_patterns("__pycache__"))
    start = ["-m", "ifguide.launch"] if installed else [str(ROOT / "deepy.py")]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_data(tmp_path)
    files = write_configuration(tmp_path / "configs", **{**keys(tmp_path, "plain", folder / "out"), "train_iters": 2})
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "GPT_NEOX_PATH")}
    result = subprocess.run(
        [sys.executable, *start, "train.py", *files], cwd=folder, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(packages), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["train_iters"] == 2 and record["command"][1] == "train.py"
    assert sorted(path.name for path in folder.iterdir()) == ["out"]


def test_another_script_must_be_there(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "deepy.py"), "trian.py", "model.yml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "trian.py does not exist; the script is train.py" in result.stderr
