"""Whether every stage of a long job can work here, found out on a toy of the job before it starts.

The toy runs the job's own stages with smaller numbers. It runs once for an environment: what passed is remembered in
the user's cache folder under the versions of everything installed and a hash of our own sources.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifguide.errors import IFGuideError
from ifguide.experiments.stages import Stages
from ifguide.system.cache import private_folder
from ifguide.system.files import hash_file, hash_value, write_json, write_text

_PACKAGE = Path(__file__).resolve().parents[1]
_CACHE = "preflight"
# as the installed command: nothing is imported from the folder that it is typed in
_COMMAND = "import sys; sys.path.pop(0); from ifguide.cli import main; raise SystemExit(main(sys.argv[1:]))"
_KEPT = 32  # records of environments
_EXTRAS = "gpt-neox-ifguide[embedded,influence,eval]"
# they choose the device, and with it other code
_DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "IFGUIDE_DEVICE")


class PreflightError(IFGuideError):
    """A stage of a job cannot work in this environment."""


def preflight(
    job: str, toy: Callable[[Stages], Any], settings: Mapping[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Run ``toy`` in a temporary folder of its own, and remember that it passed.

    It runs in this process and leaves there what its libraries set up: `preflight_apart` spares a real run that.

    Args:
        job: what the toy is one of; part of the key, and of what the user is told.
        toy: runs its stages through the `Stages` that it is given, in the folder of these.
        settings: what of the job's settings can change whether a stage works.
        say: hears of every stage.

    Returns:
        ``seconds`` of all, and of each of the ``stages``.

    Raises:
        PreflightError: a stage failed; names it and the reason in one line.
    """
    started = time.monotonic()
    key = environment_key(job, settings)  # before libraries change the process's environment
    with tempfile.TemporaryDirectory(prefix="gpt-neox-ifguide-") as folder:
        stages = Stages(Path(folder), say)
        try:
            toy(stages)
        except Exception as error:
            raise PreflightError(_failure(job, stages, error)) from error
        result = {"seconds": round(time.monotonic() - started, 2), "stages": stages.seconds}
    _remember(key, result)
    return result


def preflight_apart(job: str, command: Sequence[str], settings: Mapping[str, Any], say: Callable[[str], None]) -> bool:
    """`preflight` in a process of its own, unless it is remembered: this one stays as it was, so the real run does the
    same after it as without it.

    Args:
        command: arguments of ``ifguide`` that make it call `preflight` with the same ``job`` and ``settings``.

    Returns:
        Whether it had to run.

    Raises:
        PreflightError: a stage failed, or the process did not end well.
    """
    if is_remembered(job, settings):
        return False
    say(f"preflight: every stage on a toy; once, until a version changes ({job} --help: how to skip it)")
    started = time.monotonic()
    path = os.pathsep.join(filter(None, [str(_PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *command],
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace",
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    say(f"  {line.rstrip()}")
            except BaseException:
                process.terminate()
                raise
        errors.seek(0)
        told = errors.read().strip().splitlines()
    if process.returncode:
        raise PreflightError(_reason_of_child(f"ifguide {command[0]}: ", told, process.returncode))
    say(f"preflight: passed in {time.monotonic() - started:.0f} s")
    return True


def is_remembered(job: str, settings: Mapping[str, Any]) -> bool:
    """Whether ``job`` passed in this very environment, with these settings."""
    folder = private_folder(_CACHE)
    return folder is not None and (folder / f"{environment_key(job, settings)}.json").is_file()


def environment_key(job: str, settings: Mapping[str, Any]) -> str:
    """A hash of what decides whether stages work: installed versions, Python, our sources, devices, ``settings``."""
    return hash_value(
        {
            "job": job,
            "settings": dict(settings),
            "installed": installed_versions(),
            "python": [platform.python_version(), platform.platform(), sys.prefix],
            "sources": _hash_of_sources(),
            "devices": [os.environ.get(name) for name in _DEVICE_VARIABLES],
        }
    )[:32]


def installed_versions() -> list[str]:
    """``name==version`` of every distribution that can be imported, indirect dependencies among them.

    setuptools puts what it carries in ``_vendor`` on the path as soon as a library imports it; that is left out.
    """
    found = (one for one in importlib.metadata.distributions() if "_vendor" not in Path(str(one.locate_file(""))).parts)
    return sorted({f"{one.metadata['Name']}=={one.version}" for one in found})


def _hash_of_sources() -> str:
    """Of this package and of the files beside it that a job reads or starts."""
    root = _PACKAGE.parent
    files = [path for path in _PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files += [path for path in (root / "configs").rglob("*.yml") if path.is_file()]
    files += [path for path in (root / "deepy.py", root / "train.py") if path.is_file()]
    return hash_value([[str(path.relative_to(root)), hash_file(path)] for path in sorted(files)])


def _remember(key: str, result: dict[str, Any]) -> None:
    folder = private_folder(_CACHE)
    if folder is None:
        return
    with contextlib.suppress(IFGuideError):  # then it runs again
        write_json(folder / f"{key}.json", result)
    records = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in records[:-_KEPT]:
        path.unlink(missing_ok=True)


def _failure(job: str, stages: Stages, error: Exception) -> str:
    """One line; traceback and logs go into the cache folder, for whoever mends it."""
    folder = private_folder(_CACHE)
    where = ""
    if folder is not None:
        path = folder / f"{job}-failure.txt"
        logs = sorted(stages.folder.rglob("*.log"))
        texts = [f"\n{log.name}:\n{log.read_text(encoding='utf-8', errors='replace')}" for log in logs]
        with contextlib.suppress(IFGuideError):  # a full disk must not hide what failed
            write_text(path, "".join(traceback.format_exception(error)) + "".join(texts))
            where = f" (details: {path})"
    if isinstance(error, ModuleNotFoundError):
        reason = f"the package '{error.name}' is missing; install it with: pip install '{_EXTRAS}'"
    elif isinstance(error, IFGuideError):
        reason = str(error)
    else:
        reason = f"{type(error).__name__}: {error}"
    reason = reason.replace(f"{stages.folder}{os.sep}", "")  # the folder is gone when this is read
    what = f"stage '{stages.failed}'" if stages.failed else "what follows the last stage"
    return f"{what} cannot work in this environment: {' '.join(reason.split())}{where}"


def _reason_of_child(speaker: str, told: Sequence[str], code: int) -> str:
    """What the child said as its last word; how it ended where it was ended by others."""
    said = [line.removeprefix(speaker) for line in told if line.startswith(speaker)]
    if code == 2 and said:
        return said[-1]
    ending = f"signal {-code}" if code < 0 else f"exit {code}"
    last = f": {told[-1]}" if told else ""
    return f"the toy of the stages ended with {ending}{last}"
