"""The folder that a run saves into: who may go on there, and what is removed when another one may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifguide.errors import InputError
from ifguide.system.outputs import NEW, REPLACED, SAME, UNFINISHED
from ifguide.system.run_folder import Earlier, claim_save, latest_tag
from tests.engine.test_run import paths
from tests.engine.tiny import deepy, read_log, write_configuration


@pytest.fixture
def save(tmp_path: Path) -> Path:
    """A folder with a checkpoint of iteration 6, and a file that no run made."""
    folder = tmp_path / "out"
    for name in ("global_step3", "global_step6", "hf"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_text(name)
    (folder / "latest").write_text("global_step6")
    (folder / "notes.txt").write_text("mine")
    return folder


def keys(save: Path, **more: Any) -> dict[str, Any]:
    return {"save": str(save), "train_iters": 6, "data_path": "d", **more}


def earlier(save: Path, iterations: int = 6, **more: Any) -> Earlier:
    return Earlier(keys(save, **more), Path.cwd(), iterations)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_who_may_go_on(save: Path) -> None:
    assert claim_save(keys(save), None, False) == (NEW, "")
    state, line = claim_save(keys(save), earlier(save), False)
    assert state == SAME and "finished (global_step6); nothing to do" in line
    # an absolute path is the same one, and to load from where one saves is no other run
    same = keys(save, data_path=str(Path.cwd() / "d"), load=str(save), master_port=1)
    assert claim_save(same, earlier(save), False)[0] == SAME
    assert claim_save(keys(save, load=str(save)), earlier(save, 9), False) == (UNFINISHED, "")
    state, line = claim_save(keys(save, load=str(save), train_iters=9), earlier(save), False)
    assert state == UNFINISHED and line.endswith("with other settings: train_iters was 6, is 9")
    assert names(save) == {"global_step3", "global_step6", "hf", "latest", "notes.txt"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"train_iters": 9}, "train_iters was 6, is 9; give another output, or --overwrite"),
        ({"penalty_data_path": "m"}, "penalty_data_path was not given, is "),
        ({"load": "other", "finetune": True}, "finetune was not given, is yes; load was not given"),
    ],
)
def test_another_run_is_refused_and_replaced(save: Path, more: dict[str, Any], says: str) -> None:
    before = names(save)
    with pytest.raises(InputError) as refused:
        claim_save(keys(save, **more), earlier(save), False)
    assert says in str(refused.value) and "\n" not in str(refused.value) and names(save) == before
    state, line = claim_save(keys(save, **more), earlier(save), True, only_look=True)
    assert (state, line) == (REPLACED, f"would replace the run in {save}") and names(save) == before
    assert claim_save(keys(save, **more), earlier(save), True)[0] == REPLACED
    assert names(save) == {"notes.txt"}, "what no run made stays"


def test_an_unfinished_run_says_how_to_go_on(save: Path) -> None:
    with pytest.raises(InputError, match=r"holds global_step6 of this very run; set load: .*out to go on there"):
        claim_save(keys(save), earlier(save, 9), False)


def test_weights_are_not_lost_to_their_own_run(save: Path) -> None:
    before = names(save)
    for load in (save, save / "hf"):
        with pytest.raises(InputError, match="holds what load names"):
            claim_save(keys(save, load=str(load), finetune=True), earlier(save), True)
        with pytest.raises(InputError, match="holds what load names"):
            claim_save(keys(save, load=str(load), finetune=True), earlier(save), True, only_look=True)
    with pytest.raises(InputError, match="holds what reference names"):
        claim_save(keys(save, reference=str(save / "reference")), earlier(save), True)
    assert names(save) == before


def test_checkpoints_that_nothing_describes(save: Path) -> None:
    with pytest.raises(InputError, match="nothing with it says which configuration made it"):
        claim_save(keys(save), Earlier(None, Path.cwd(), None), False)
    (save / "latest").unlink()
    assert latest_tag(save) == "global_step6" and latest_tag(save / "none") is None


def test_the_embedded_engine(corpus: Path, tmp_path: Path) -> None:
    """As users start it: done, nothing to do, refused, replaced."""
    values = paths(corpus, train_iters=2, eval_iters=0, save="out")
    arguments = write_configuration(tmp_path, **values)
    assert deepy(arguments, tmp_path).returncode == 0
    out = tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = deepy(arguments, tmp_path)
    assert again.returncode == 0
    assert again.stdout == "save: out holds this very run, finished (global_step2); nothing to do\n"
    other = write_configuration(tmp_path / "other", **values | {"train_iters": 1, "seed": 8})
    refused = deepy(other, tmp_path)
    assert refused.returncode == 2
    assert "save: out was made by another command: seed was 7, is 8; train_iters was 2, is 1" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    replaced = deepy([*other, "--overwrite"], tmp_path)
    assert replaced.returncode == 0 and "replaced the run in out" in replaced.stdout
    assert (out / "latest").read_text() == "global_step1" and not (out / "global_step2").exists()
    assert [row["iteration"] for row in read_log(out)] == [1]
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["seed"] == 8
