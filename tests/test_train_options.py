"""What `deepy.py` and `ifguide-train` take beside NeoX's options: files of the current folder, runs only checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifguide import launch
from ifguide.config.yaml_files import config_paths
from ifguide_patch.launch import _found
from tests.engine.goldens import keys, write_data
from tests.engine.tiny import write_configuration
from tests.support.folders import contents


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPT_NEOX_PATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_file_that_is_not_in_the_folder_is_one_of_here(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("configs/both.yml", "both.yml", "here.yml", "configs/there.yml"):
        (tmp_path / name).write_text("{}")
    found = config_paths(["both", "here.yml", "there", "nowhere"], "configs")
    assert found == [Path("configs/both.yml"), Path("here.yml"), Path("configs/there.yml"), Path("configs/nowhere.yml")]
    assert config_paths(["here", "nowhere.yml"]) == [Path("here.yml"), Path("nowhere.yml")]


def test_gpt_neox_is_given_the_file_of_here_by_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("configs/both.yml", "both.yml", "here.yml", "group.yml"):
        (tmp_path / name).write_text("{}")
    words = ["-d", "configs", "both", "here", "configs/both.yml", "nowhere.yml", "--wandb_group", "group"]
    whole = [str(tmp_path / name) for name in ("here.yml", "configs/both.yml")]
    expected = ["-d", "configs", "both", *whole, "nowhere.yml", "--wandb_group", "group"]
    assert _found(words) == expected
    assert _found(["here", "both.yml"]) == ["here", "both.yml"], "without -d all files are of here"


def test_a_dry_run_checks_and_starts_nothing(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(launch, "launch", lambda *given: pytest.fail("it was started"))
    write_data(tmp_path)
    files = write_configuration(tmp_path / "configs", **keys(tmp_path, "ascent", tmp_path / "out"))
    assert launch.main(["train.py", *files, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 iterations of 8 x 16 tokens on 1 process(es)" in said and "penalty: ascent, λ 0.3" in said
    assert said.splitlines()[-1] == "dry run: everything was checked, nothing was started"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_announces_what_the_run_does(tmp_path: Path, capsys: Any) -> None:
    """Of masks that only label tokens no penalty is said; and a folder to be replaced is looked at like any other."""
    write_data(tmp_path)
    labels = {"objective": "repo", "repo_penalty": False, "repo_warmup_iters": 1, "repo_retain": "ce"}
    values = {**keys(tmp_path, "ascent", tmp_path / "out"), "penalty_lambda": None, **labels}
    files = write_configuration(tmp_path / "configs", **values)
    assert launch.main(["train.py", *files, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "penalty: none, the masks only say which tokens are toxic" in said and "λ" not in said
    (tmp_path / "out/global_step3").mkdir(parents=True)
    values |= {"load": str(tmp_path / "out"), "finetune": True}
    files = write_configuration(tmp_path / "configs", **values)
    assert launch.main(["train.py", *files, "--dry-run", "--overwrite"]) == 2
    assert "holds what load names" in capsys.readouterr().err


def test_a_dry_run_says_what_the_run_would_stop_at(tmp_path: Path, capsys: Any) -> None:
    write_data(tmp_path)
    (tmp_path / "other").mkdir()
    values = keys(tmp_path, "ascent", tmp_path / "out")
    content = bytearray((tmp_path / "data.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "data.bin").write_bytes(content)
    files = write_configuration(tmp_path / "configs", **values)
    assert launch.main(["train.py", *files, "--dry-run"]) == 2
    assert "deepy.py: " in (said := capsys.readouterr().err) and "binary" in said


def test_a_dry_run_leaves_an_earlier_run_alone(tmp_path: Path, capsys: Any) -> None:
    write_data(tmp_path)
    (tmp_path / "out/global_step3").mkdir(parents=True)
    (tmp_path / "out/latest").write_text("global_step3")
    files = write_configuration(tmp_path / "configs", **keys(tmp_path, "plain", tmp_path / "out"))
    before = contents(tmp_path / "out")
    assert launch.main(["train.py", *files, "--dry-run"]) == 2
    assert "was made by another command" in capsys.readouterr().err
    assert launch.main(["train.py", *files, "--dry-run", "--overwrite"]) == 0
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["model.yml", "--dry-run"], ["train.py", "model.yml", "--dry-run"]),
        (["-d", "configs", "model"], ["train.py", "-d", "configs", "model"]),
        (["eval.py", "model.yml"], ["eval.py", "model.yml"]),
        (["--help"], ["--help"]),
    ],
)
def test_the_installed_command_trains(given: list[str], meant: list[str], monkeypatch: Any) -> None:
    heard: list[list[str]] = []
    monkeypatch.setattr(launch, "main", lambda argv: heard.append(argv) or 0)
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/ifguide-train", *given])
    assert launch.installed() == 0 and heard == [meant]


def test_it_is_installed() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'ifguide-train = "ifguide.launch:installed"' in project
    assert json.dumps("ifguide.cli:main") in project
