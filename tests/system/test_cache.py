"""Private folders that are built once, by one of several processes, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.system import cache
from ifguide.system.cache import cached_folder, is_private, private_folder
from ifguide.system.files import hash_file

KEY = "f" * 32

# a builder that tells when it is inside and leaves when it is told to; it counts the builds in a file of its own
BUILDER = """
import sys
from pathlib import Path
from ifguide.system.cache import cached_folder
with cached_folder("indices", "f" * 32) as folder:
    hit = (folder / "index").exists()
    print("hit" if hit else "build", flush=True)
    if not hit:
        (folder / "half").write_text("x")
        sys.stdin.readline()
        (folder / "index").write_text("whole")
    print((folder / "index").read_text(), flush=True)
"""


@pytest.fixture(autouse=True)
def indices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt-neox-ifguide" / "indices"


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    return output.split()


def build() -> tuple[bool, list[str]]:
    """Use the cache in this process: (was it built before, what is in it)."""
    with cached_folder("indices", KEY) as folder:
        hit = (folder / "index").exists()
        (folder / "index").write_text("whole")
        return hit, sorted(path.name for path in folder.iterdir())


def names(folder: Path) -> list[str]:
    """Everything there, hidden files too; the folder of the key as "KEY"."""
    return ["KEY" if len(name) == 32 else name for name in sorted(os.listdir(folder))]  # noqa: PTH208


def test_built_once_and_kept(indices: Path) -> None:
    assert build() == (False, ["index"])
    assert build() == (True, ["index"])
    assert names(indices) == ["KEY"]
    assert all(is_private(folder) for folder in (indices, *indices.iterdir()))


def test_a_failed_build_leaves_nothing(indices: Path) -> None:
    with pytest.raises(OSError, match="planted"), cached_folder("indices", KEY) as folder:
        (folder / "half").write_text("x")
        raise OSError("planted")
    assert names(indices) == []
    assert build() == (False, ["index"])


def test_two_processes_at_once_build_once(indices: Path) -> None:
    first, second = start(), start()
    # one of the two is in; the other says nothing before it has left
    os.set_blocking(first.stdout.fileno(), False)  # type: ignore[union-attr]
    os.set_blocking(second.stdout.fileno(), False)  # type: ignore[union-attr]
    builder, waiting = wait_for_one(first, second)
    assert finish(builder) == ["whole"]
    assert finish(waiting) == ["hit", "whole"]
    assert names(indices) == ["KEY"]


def wait_for_one(*processes: subprocess.Popen[str]) -> tuple[subprocess.Popen[str], ...]:
    """The process that says first that it builds, then the other, which has said nothing."""
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for number, process in enumerate(processes):
            line = said(process)
            if line:
                assert line == "build"
                time.sleep(0.5)  # enough for the other to come as far, were it not kept out
                other = processes[1 - number]
                assert said(other) == ""
                for one in processes:
                    os.set_blocking(one.stdout.fileno(), True)  # type: ignore[union-attr]
                return process, other
        time.sleep(0.05)
    raise AssertionError("no process built anything")


def test_what_a_killed_builder_left_goes(indices: Path) -> None:
    victim = start()
    assert said(victim) == "build"
    assert any(name.endswith(".building") for name in names(indices))
    victim.send_signal(signal.SIGKILL)
    victim.wait(timeout=60)
    assert len(names(indices)) == 2  # the lock and the half-built folder
    with cached_folder("indices", "a" * 32):
        pass
    assert names(indices) == ["KEY"]
    assert build() == (False, ["index"])


def test_the_next_builder_of_the_same_key_takes_over(indices: Path) -> None:
    victim = start()
    assert said(victim) == "build"
    successor = start()
    victim.send_signal(signal.SIGKILL)
    victim.wait(timeout=60)
    assert said(successor) == "build"
    assert finish(successor) == ["whole"]
    assert names(indices) == ["KEY"]
    assert build() == (True, ["half", "index"])  # "half" is the successor's own


@pytest.mark.parametrize("mode", [0o777, 0o770])
@pytest.mark.parametrize("where", ["root", "key", "parent"])
def test_what_others_could_have_written_is_not_read(indices: Path, mode: int, where: str) -> None:
    build()
    (key,) = indices.iterdir()
    (key / "index").write_text("planted")
    {"root": indices, "key": key, "parent": indices.parent}[where].chmod(mode)
    with cached_folder("indices", KEY) as folder:
        assert not (folder / "index").exists()
        assert is_private(folder) and indices not in folder.parents
    assert not folder.exists()


def test_a_link_or_anothers_folder_is_not_used(indices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    indices.parent.mkdir(parents=True, mode=0o700)
    indices.symlink_to(tmp_path / "elsewhere")
    assert private_folder("indices") is None
    indices.unlink()
    assert private_folder("indices") == indices
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert private_folder("indices") is None


def test_a_cache_that_cannot_be_written_costs_only_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with cached_folder("indices", KEY) as folder:
        assert is_private(folder)
        (folder / "index").write_text("whole")
    assert not folder.exists()


def test_a_file_system_without_locks(indices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert build() == (False, ["index"])
    assert build() == (False, ["index"])
    assert not any(path.is_dir() for path in indices.iterdir())


def _hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are hashed from now on."""
    read: list[str] = []
    original = cache.hash_file
    monkeypatch.setattr(cache, "hash_file", lambda path: read.append(path.name) or original(path))
    return read


def test_a_large_file_is_hashed_once_as_long_as_it_is_the_same(
    indices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SMALL_BYTES", 4)
    monkeypatch.setattr(cache, "_SETTLED_SECONDS", -100.0)
    read, path = _hashed(monkeypatch), tmp_path / "weights"
    path.write_bytes(b"0123456789")
    first = cache.file_hash(path)
    assert cache.file_hash(path) == first == hash_file(path) and read == ["weights"]
    status = path.stat()
    path.write_bytes(b"012345678X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as long, and made to look as old
    assert cache.file_hash(path) == hash_file(path) != first and read == ["weights"] * 2
    (tmp_path / "copy").write_bytes(b"0123456789")
    assert cache.file_hash(tmp_path / "copy") == first and read[-1] == "copy"


def test_a_file_that_may_still_change_in_the_same_tick_is_not_believed(
    indices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SMALL_BYTES", 4)
    read, path = _hashed(monkeypatch), tmp_path / "weights"
    path.write_bytes(b"0123456789")
    assert cache.file_hash(path) == cache.file_hash(path) and len(read) == 2
    assert cache.file_hash(path, just_written=True) == cache.file_hash(path) and len(read) == 3
    damaged = next((indices.parent / "hashes").iterdir())
    damaged.write_text("no hash")
    assert cache.file_hash(path) == hash_file(path) and len(read) == 4


def test_without_a_private_folder_a_file_is_hashed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SMALL_BYTES", 4)
    monkeypatch.setattr(cache, "private_folder", lambda name: None)
    (tmp_path / "weights").write_bytes(b"0123456789")
    assert cache.file_hash(tmp_path / "weights") == hash_file(tmp_path / "weights")
