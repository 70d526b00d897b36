"""Atomic writing: the old file or the new one, and no litter, not even from processes that were killed."""

import hashlib
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.system import files
from ifguide.system.files import atomic_path, write_text

# writes into a temporary, says so, and waits to be killed
_WRITER = """
import sys, time
from ifguide.system.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(60)
"""


def start_writer(final: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(final)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_leftovers_of_killed_writers_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    final = tmp_path / "result.json"
    final.write_text("old")
    killed, leftover = start_writer(final)
    living, in_use = start_writer(final)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert leftover.read_text() == in_use.read_text() == "half"
        assert str(killed.pid) in leftover.name and final.read_text() == "old"
        write_text(final, "new")
        assert sorted(tmp_path.iterdir()) == sorted([final, in_use])
        assert final.read_text() == "new"
    finally:
        living.kill()
        living.wait()
        for process in (killed, living):
            process.stdout.close()


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    """Neither the temporaries of other files nor those of another machine, nor what only looks like one."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = platform.node()
    kept = [
        f".other.json.{here}-{dead.pid}.abc.tmp",
        f".result.json.elsewhere-{dead.pid}.abc.tmp",
        f".result.json.{here}-{dead.pid}.abc",
        f".result.json.{here}-{os.getpid()}.abc.tmp",
        f".result.json.{here}-notes.tmp",
    ]
    for name in [*kept, f".result.json.{here}-{dead.pid}.abc.tmp"]:
        (tmp_path / name).touch()
    write_text(tmp_path / "result.json", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "result.json"])


def test_a_folder_is_listed_once_however_many_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of n shards would be listed n times otherwise: n² names."""
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    for number in range(5):
        write_text(tmp_path / f"part-{number}", "x")
    assert listed == [str(tmp_path)]


def test_an_exception_leaves_the_old_file_alone(tmp_path: Path) -> None:
    final = tmp_path / "result.json"
    final.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(final) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_others_may_read_the_result(tmp_path: Path) -> None:
    """Even where a library puts a private file in place of the temporary, as safetensors does."""
    with atomic_path(tmp_path / "result") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert (tmp_path / "result").stat().st_mode & 0o777 == 0o644


def test_two_writers_of_one_process_do_not_meet(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200])
def test_a_hash_of_pieces_is_that_of_their_hashes(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_HASH_PIECE", 64)
    monkeypatch.setattr(files, "_HASH_CHUNK", 10)
    content = bytes(range(size))
    (tmp_path / "f").write_bytes(content)
    digests = [hashlib.blake2b(content[at : at + 64], digest_size=32).digest() for at in range(0, size, 64)]
    expected = hashlib.blake2b(size.to_bytes(8, "little") + b"".join(digests), digest_size=32).hexdigest()
    assert files.hash_pieces(tmp_path / "f") == expected
