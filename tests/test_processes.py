"""Which process of a run this is; and how its threads wait: asleep, unless the user has chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.errors import InputError
from ifguide.system.processes import WAITING, let_waiting_threads_sleep, only_process, share_cores
from ifguide.system.run_process import RunProcess, require_one_process, this_process

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)


def chosen() -> dict[str, str]:
    return {name: os.environ[name] for name in CHOICES if name in os.environ}


def test_threads_sleep_by_default() -> None:
    let_waiting_threads_sleep()
    assert chosen() == WAITING == {"GOMP_SPINCOUNT": "1000"}


@pytest.mark.parametrize(
    "name, value", [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "10000"), ("KMP_BLOCKTIME", "1")]
)
def test_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    let_waiting_threads_sleep()
    assert chosen() == {name: value}


def test_launched_workers_inherit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "kept")
    share_cores(2)  # what both engines' launchers do
    assert chosen() == WAITING
    assert os.environ["OMP_NUM_THREADS"] == "kept"


WATCH = """
import builtins, os, sys
plain = builtins.__import__
def watched(name, *rest):
    if name == "torch":
        print(os.environ.get("GOMP_SPINCOUNT"))
        raise SystemExit(0)
    return plain(name, *rest)
builtins.__import__ = watched
from ifguide.cli import main
main(["fit-factors", "--model", "absent", "--data", "absent", "--output", "factors"])
"""


def test_a_verb_chooses_before_torch_is_loaded(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run([sys.executable, "-c", WATCH], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "1000\n", done.stderr


@pytest.mark.parametrize(
    ("variables", "process"),
    [
        ({}, RunProcess()),
        # torchrun, and DeepSpeed's launcher, which names the size of a machine otherwise
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            RunProcess(rank=5, world_size=8, local_rank=1, local_size=4),
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_SIZE": "2"},
            RunProcess(rank=1, world_size=2, local_rank=1, local_size=2),
        ),
        ({"RANK": "1", "WORLD_SIZE": "3"}, RunProcess(rank=1, world_size=3, local_rank=None, local_size=3)),
        ({"RANK": "", "WORLD_SIZE": ""}, RunProcess()),
    ],
)
def test_which_process_this_is(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], process: RunProcess) -> None:
    launched(monkeypatch, variables)
    assert this_process() == process
    assert this_process().leads == (process.rank == 0)


@pytest.mark.parametrize(
    "variables", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "1"}, {"RANK": "x"}, {"LOCAL_RANK": "-1"}]
)
def test_variables_that_contradict_are_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    launched(monkeypatch, variables)
    with pytest.raises(InputError, match=f"{next(iter(variables))}="):
        this_process()


def test_one_of_several_is_refused_where_one_must_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler's WORLD_SIZE alone is no launcher's; what reads that variable itself refuses it all the same."""
    for variables in ({}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, {"WORLD_SIZE": "many"}):
        launched(monkeypatch, variables)
        require_one_process("it fits alone", "fit-factors")
    launched(monkeypatch, {"WORLD_SIZE": "2"})
    require_one_process("it fits alone", "fit-factors", launched=True)
    wanted = r"^this is one of 2 processes \(WORLD_SIZE\), and it fits alone; run fit-factors once, without torchrun"
    with pytest.raises(InputError, match=wanted):
        require_one_process("it fits alone", "fit-factors")
    launched(monkeypatch, {"WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    with pytest.raises(InputError, match=wanted):
        require_one_process("it fits alone", "fit-factors", launched=True)


def test_the_only_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, only_process())
    assert this_process() == RunProcess(local_rank=0)


def launched(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
