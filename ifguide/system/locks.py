"""A lock between processes that nobody has to clean up: the system gives a killed process's lock back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from ifguide.errors import InputError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Keep other processes out until the block ends; False, at once, if one is in and this one shall not ``wait``.

    The file is removed with the lock.

    Raises:
        OSError: the file cannot be made, or the file system has no locks.
    """
    handle, mine = _take(path, wait)
    try:
        yield mine
    finally:
        if mine:
            path.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def taken_if_possible(path: Path, wait: bool = True) -> Iterator[bool]:
    """`locked`, but a file system without locks is trusted: every process is let in.

    Raises:
        OSError: the file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            mine = stack.enter_context(locked(path, wait))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            mine = True
        yield mine


def has_locks(folder: Path) -> bool:
    """Whether the file system of ``folder`` has locks, so that processes can tell what others are at.

    Raises:
        OSError: nothing can be made in it.
    """
    try:
        with locked(folder / f".probe-{platform.node()}-{os.getpid()}.lock", wait=False):
            return True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False


@contextlib.contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Keep other processes from writing ``output`` until the block ends. A file system without locks is trusted.

    Raises:
        InputError: another process is writing it, or its folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            mine = stack.enter_context(taken_if_possible(output.with_name(f".{output.name}.lock"), wait=False))
        except OSError as error:
            raise InputError(f"{output} cannot be written: {error.strerror}") from None
        if not mine:
            raise InputError(f"another process is writing {output}; wait for it, end it, or give another output")
        yield


def _take(path: Path, wait: bool) -> tuple[int, bool]:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # the one before may have removed this file, and another may hold a new one
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle, True
        except BlockingIOError:
            return handle, False
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
