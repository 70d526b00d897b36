"""How threads wait: asleep, in our processes and those that they start, unless the user has chosen."""

import os
import subprocess
import sys

import pytest

from ifguide.system.processes import WAITING, let_waiting_threads_sleep, share_cores

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
    assert chosen() == WAITING == {"OMP_WAIT_POLICY": "passive"}


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
        print(os.environ.get("OMP_WAIT_POLICY"))
        raise SystemExit(0)
    return plain(name, *rest)
builtins.__import__ = watched
from ifguide.cli import main
main(["fit-factors", "--model", "absent", "--data", "absent", "--output", "absent"])
"""


def test_a_verb_chooses_before_torch_is_loaded() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run([sys.executable, "-c", WATCH], env=environment, capture_output=True, text=True)
    assert done.stdout == "passive\n", done.stderr
