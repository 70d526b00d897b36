"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ifguide.errors import InputError, OutOfSpaceError

_FULL_BYTES = 1 << 20


# a folder that holds one of these is a model or a checkpoint; any other is not ours to remove
_OURS = ("run.json", "config.json", "latest")


def check_output(final: Path, source: Path, overwrite: bool = False) -> None:
    """
    Args:
        source: what is converted.
        overwrite: a model or a checkpoint at ``final`` may be replaced.

    Raises:
        InputError: there is something at ``final`` already, or it is what is converted.
    """
    if final.resolve() == source.resolve() or final.resolve() in source.resolve().parents:
        raise InputError(f"--output {final} is the input, or holds it; choose another")
    if overwrite and any((final / name).exists() for name in _OURS):
        return
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise InputError(f"{final} already exists; remove it, or choose another --output")


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield a folder beside ``final`` that takes its name if the block succeeds and is removed if not; what a killed
    run left behind is removed by the next.

    Raises:
        InputError: the folder cannot be made.
        OutOfSpaceError: the disk filled up.
    """
    final = final.absolute()
    staging = final.parent / f".{final.name}.converting"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{final.parent}: {error.strerror}") from error
    try:
        yield staging
        previous = final.parent / f".{final.name}.replaced"
        shutil.rmtree(previous, ignore_errors=True)
        if final.exists():
            final.rename(previous)
        staging.rename(final)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException as error:
        full = shutil.disk_usage(final.parent).free < _FULL_BYTES
        shutil.rmtree(staging, ignore_errors=True)
        if full and isinstance(error, Exception):  # torch and safetensors report it by errors of their own
            raise OutOfSpaceError(f"no space left on the disk of {final}; nothing was written") from error
        raise
