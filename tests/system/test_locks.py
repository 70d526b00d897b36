"""One writer an output, whatever happened to the one before."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.errors import InputError
from ifguide.system import locks
from ifguide.system.locks import locked, only_writer

HOLD = """
import sys, time
from pathlib import Path
from ifguide.system.locks import only_writer
with only_writer(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_another_process_is_told_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "mine\n"
    with pytest.raises(InputError, match=rf"^another process is writing {output}; "), only_writer(output):
        pass
    with only_writer(tmp_path / "other.jsonl"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(output):
        assert [path.name for path in tmp_path.iterdir()] == [".out.jsonl.lock"]
    assert not [*tmp_path.iterdir()]


def test_an_exception_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_writer(tmp_path / "out"):
        raise KeyError
    with locked(tmp_path / ".out.lock", wait=False) as mine:
        assert mine


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file"), only_writer(tmp_path / "no" / "out"):
        pass


def test_without_locks_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with only_writer(tmp_path / "out"):
        pass
