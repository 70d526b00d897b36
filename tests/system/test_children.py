"""Commands as processes that end with the job: what they say, what they took, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ifguide.errors import IFGuideError
from ifguide.system.children import Children, verb_command

_SLEEPER = "import os, subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(os.getpid(), p.pid, flush=True); time.sleep(60)"  # noqa: E501
_JOB = """
import sys
from pathlib import Path
from ifguide.system.children import Children
Children().run([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), "sleeper", lambda line: print(line, flush=True))
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.02)


def test_a_command_is_logged_told_and_measured(tmp_path: Path) -> None:
    told: list[str] = []
    code = "import os, sys; print('one'); print('two', file=sys.stderr); b = bytearray(60 << 20); print(os.environ['OMP_NUM_THREADS'])"  # noqa: E501
    cost = Children(3).run([sys.executable, "-c", code], tmp_path / "logs/a.log", "a", told.append)
    assert (tmp_path / "logs/a.log").read_text().split() == ["one", "two", "3"]
    assert told == ["  a: one", "  a: two", "  a: 3"]
    assert cost.memory is None or 60 << 20 < cost.memory < 1 << 30
    assert 0 < cost.seconds < 60


def test_a_failure_names_the_command_its_exit_and_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('before'); sys.exit('no such thing')"
    with pytest.raises(IFGuideError, match=r"mask failed \(exit 1, log .*a.log\): before \| no such thing"):
        Children().run([sys.executable, "-c", code], tmp_path / "a.log", "mask")
    with pytest.raises(IFGuideError, match=r"exit 137.*it said nothing"):
        Children().run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tmp_path / "b.log", "mask")


def test_a_verb_is_the_installed_command(tmp_path: Path) -> None:
    with pytest.raises(IFGuideError, match="unknown verb 'biuld-mask'"):
        Children().run(verb_command(["biuld-mask"]), tmp_path / "a.log", "mask")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_nothing_outlives_a_job_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _JOB, _SLEEPER, str(tmp_path / "a.log")], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as job:  # fmt: skip
        assert job.stdout is not None
        pids = list(map(int, job.stdout.readline().split(":")[1].split()))
        assert all(map(is_alive, pids)) and len(pids) == 2
        job.send_signal(signal.SIGKILL)
    wait_until_gone(pids)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_ended_by_the_job_itself(tmp_path: Path) -> None:
    children, told, failures = Children(), [], []

    def work() -> None:
        try:
            children.run([sys.executable, "-c", _SLEEPER], tmp_path / "a.log", "sleeper", told.append)
        except IFGuideError as error:
            failures.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 20
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    children.end()
    thread.join(20)
    assert failures and "sleeper failed" in failures[0]
    wait_until_gone(list(map(int, told[0].split(":")[1].split())))
    with pytest.raises(IFGuideError):
        children.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "b.log", "late")
