"""A folder of this user's own for what can be computed again.

What lies there is believed (fingerprints, hashes) or even unpickled (megatron-core's indices), so a folder
that anyone else may write is not used.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ifguide.errors import IFGuideError
from ifguide.system.files import hash_file, hash_pieces, hash_value, write_text
from ifguide.system.locks import locked

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LOCK = ".lock"
# a file that was written later than this before it was hashed may be written once more in the same tick of its clock
_SETTLED_SECONDS = 2.0
_SMALL_BYTES = 1 << 20


def private_folder(name: str) -> Path | None:
    """``$XDG_CACHE_HOME/gpt-neox-ifguide/NAME``, made if need be; None where it cannot be written or is not private."""
    # Path.home() raises where the user has no home (containers with arbitrary ids); this does not
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    parent = Path(home) / "gpt-neox-ifguide"
    folder = parent / name
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError:
        return None
    return folder if is_private(parent) and is_private(folder) and os.access(folder, os.W_OK) else None


def is_private(folder: Path) -> bool:
    """Whether ``folder`` is a folder, no link, of this user, and writable by nobody else."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE


@contextlib.contextmanager
def cached_folder(name: str, key: str) -> Iterator[Path]:
    """The folder ``key`` of `private_folder` ``name``, for a block that fills it or finds it filled.

    One process of the machine builds it. A second one that needs it meanwhile waits, and then reads it. It is built
    under another name and renamed when the block ends without an exception; what a killed builder left goes
    with the next call. Where there is no private folder that can be locked, it is a temporary one and
    goes when the block ends: files that are open by then stay readable.
    """
    with contextlib.ExitStack() as stack:
        final, work = _prepare(private_folder(name), key, stack)
        folder = work or final
        assert folder is not None
        yield folder
        if work is not None and final is not None:
            work.rename(final)


def file_hash(path: str | os.PathLike, just_written: bool = False, pieces: bool = False) -> str:
    """`hash_file` of a large file that many processes need: one of this user's hashes it, the others wait and read.

    The file is known again by its place, size, inode and the times of its last change, which every write moves.

    Args:
        just_written: by this process, and nobody else writes it: it is remembered however new it is.
        pieces: `hash_pieces` in its place.
    """
    path = Path(path)
    take = hash_pieces if pieces else hash_file
    status = path.stat()
    root = private_folder("hashes") if status.st_size >= _SMALL_BYTES else None
    if root is None:
        return take(path)
    kept = root / hash_value([str(path.resolve()), *_state(status), *(["pieces"] if pieces else [])])
    known = _kept_hash(kept)
    if known is None:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks
                stack.enter_context(locked(kept.with_suffix(_LOCK)))
            known = _kept_hash(kept)
            if known is None:
                hashing_from = time.time()
                known = take(path)
                settled = hashing_from - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS
                if (settled or just_written) and _state(path.stat()) == _state(status):
                    with contextlib.suppress(IFGuideError):  # a full home costs the next caller another pass
                        write_text(kept, known)
    return known


def _state(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _kept_hash(kept: Path) -> str | None:
    """None also for an entry that is no hash: it has to be taken again."""
    try:
        text = kept.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _prepare(root: Path | None, key: str, stack: contextlib.ExitStack) -> tuple[Path | None, Path | None]:
    """(final folder, folder to build in). Without the latter it is built; without the former it will
    not be kept. ``stack`` gives back the lock and removes what must not stay."""
    if root is not None:
        final, lock = root / key, root / f".{key}{_LOCK}"
        with contextlib.suppress(OSError):  # a file system without locks
            _remove_stale(root)
            if not final.exists():
                stack.enter_context(locked(lock))
            if is_private(final):
                return final, None
            if not final.exists():
                work = _building(lock)
                shutil.rmtree(work, ignore_errors=True)  # of a builder that was killed while this one waited
                stack.callback(shutil.rmtree, work, ignore_errors=True)
                work.mkdir(mode=0o700)
                return final, work
    temporary = Path(tempfile.mkdtemp(prefix="gpt-neox-ifguide-"))
    stack.callback(shutil.rmtree, temporary, ignore_errors=True)
    return None, temporary


def _building(lock: Path) -> Path:
    return lock.with_suffix(".building")


def _remove_stale(root: Path) -> None:
    """Remove what builders that were killed left: their locks can be taken."""
    for lock in root.glob(f".*{_LOCK}"):
        with locked(lock, wait=False) as mine:
            if mine:
                shutil.rmtree(_building(lock), ignore_errors=True)
