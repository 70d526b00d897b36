"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ifguide.errors import InputError, OutOfSpaceError
from ifguide.system.processes import usable_cores
from ifguide.system.text_files import read_rows, what_it_is

_HASH_CHUNK = 1 << 22
# a file is hashed in such pieces where several threads do it; what is recorded depends on it
_HASH_PIECE = 1 << 26
_HASH_THREADS = 8
_TEMPORARY = ".tmp"
# folder -> final name -> what killed writers left of it. Listed once in a process: listing a folder of many files at
# each write into it takes longer than the write
_leftovers: dict[str, dict[str, list[str]]] = {}
_hashed: dict[tuple[str, int, int, int], str] = {}


@contextlib.contextmanager
def atomic_path(final: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; move it into place only if the block succeeds.

    The data is fsynced before the rename and the folder after it, so a crash at any point leaves
    either the previous ``final`` or the complete new one. On an exception the temporary is removed; what a process of
    this machine left behind that was killed before this one first wrote here, is removed by the next writer of
    ``final``.

    Raises:
        InputError: the folder does not exist or cannot be written.
        OutOfSpaceError: the disk filled up.
    """
    final = Path(final)
    try:
        _remove_stale(final)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.{_owner()}.", suffix=_TEMPORARY, dir=final.parent)
        os.close(handle)
    except OSError as error:
        raise _explain(error, final) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's, and safetensors', are for one user only
        _fsync(temporary)
        temporary.replace(final)
        _fsync(final.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _explain(error, final) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Atomically write ``text`` as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Atomically write ``value`` as indented JSON; refuses NaN and infinities."""
    with atomic_path(path) as temporary:
        dump_json(temporary, value)


def dump_json(temporary: str | os.PathLike, value: Any) -> None:
    """As `write_json`, straight into a file that `atomic_path` gave out: a temporary of that temporary would be
    left behind by a kill, for nobody writes under its name again."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    Path(temporary).write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike, what: str = "file") -> Any:
    """Read JSON.

    Raises:
        InputError: missing or malformed; ``what`` names its role in the message.
    """
    try:
        data = Path(path).read_bytes()
        found = what_it_is(data)
        if found is not None:
            raise InputError(f"{what} {path} is not valid JSON: it is {found[0]}; {found[1]}")
        return json.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist") from None
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond all measure
        raise InputError(f"{what} {path} is not valid JSON: {error}") from None
    except OSError as error:
        raise _explain(error, Path(path)) from error


def read_jsonl(path: str | os.PathLike, what: str = "file") -> list[dict]:
    """Read one JSON object per line, skipping blank lines.

    Raises:
        InputError: missing, or a line that is not a JSON object of Unicode text (names the line).
    """
    return [row for _, row in read_rows(path, what)]


def write_jsonl(path: str | os.PathLike, rows: list[dict]) -> None:
    """Atomically write one JSON object per line."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def hash_file(path: str | os.PathLike, on_bytes: Callable[[int], object] | None = None) -> str:
    """Hex BLAKE2b-256 of the file's bytes; ``on_bytes`` is told how many were read (progress)."""
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


def hash_pieces(path: str | os.PathLike) -> str:
    """Hex BLAKE2b-256 of the file's size and of the BLAKE2b-256 of each 64 MiB of it, by several threads at once: a
    single thread needs minutes for a hundred GB."""
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size

        def piece(start: int) -> bytes:
            digest = hashlib.blake2b(digest_size=32)
            stop = min(start + _HASH_PIECE, size)
            while start < stop and (chunk := os.pread(handle, min(_HASH_CHUNK, stop - start), start)):
                digest.update(chunk)
                start += len(chunk)
            return digest.digest()

        with ThreadPoolExecutor(min(_HASH_THREADS, usable_cores())) as threads:
            digests = list(threads.map(piece, range(0, size, _HASH_PIECE)))
    finally:
        os.close(handle)
    return hashlib.blake2b(size.to_bytes(8, "little") + b"".join(digests), digest_size=32).hexdigest()


def hash_unchanged(path: str | os.PathLike) -> str:
    """`hash_file`, once in a process as long as size and time of the file stay what they are."""
    status = Path(path).stat()
    key = (str(Path(path).absolute()), status.st_size, status.st_mtime_ns, status.st_ino)
    if key not in _hashed:
        _hashed[key] = hash_file(path)
    return _hashed[key]


def hash_value(value: Any) -> str:
    """Hex BLAKE2b-128 of a JSON-able value: the identity of a set of parameters."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _owner() -> str:
    """What says whose a temporary is. A pid says nothing about the processes of another machine that shares the disk,
    so the name of this one is in it."""
    return f"{platform.node()}-{os.getpid()}"


def _remove_stale(final: Path) -> None:
    """Remove the temporaries of ``final`` whose process, of this machine, no longer exists."""
    folder = str(final.parent.absolute())
    if folder not in _leftovers:
        _leftovers[folder] = _find_stale(folder)
    for path in _leftovers[folder].pop(final.name, []):
        with contextlib.suppress(OSError):  # another writer removed it, or it is another user's
            os.unlink(path)  # noqa: PTH108


def _find_stale(folder: str) -> dict[str, list[str]]:
    """Final name -> temporaries of it in ``folder`` whose process, of this machine, no longer exists."""
    owned = re.compile(rf"\.(.+)\.{re.escape(platform.node())}-(\d+)\.[^.]+{re.escape(_TEMPORARY)}")
    found: dict[str, list[str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            match = owned.fullmatch(entry.name)
            if match and not _is_running(int(match[2])):
                found.setdefault(match[1], []).append(entry.path)
    return found


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_faults(option: str, output: str | os.PathLike) -> list[str]:
    """The fault of an ``output`` whose folder is missing, to be told before the work; empty if it is there."""
    folder = Path(output).absolute().parent
    return [] if folder.is_dir() else [f"{option} {os.fspath(output)}: folder {folder} does not exist"]


def _explain(error: OSError, path: Path, what: str = "") -> Exception:
    """The same fault as one sentence that names the path."""
    subject = f"{what} {path}".strip()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpaceError(f"no space left on the disk of {path}; nothing was replaced, free some room and rerun")
    if error.errno == errno.ENOENT:
        return InputError(f"{subject} does not exist" if what else f"folder {path.parent} does not exist")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"no permission for {subject}")
    return InputError(f"{subject}: {error.strerror or error}")
