"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ifguide.errors import InputError, OutOfSpaceError

_FULL_BYTES = 1 << 20


def check_output(final: Path) -> None:
    """Raises:
    InputError: there is something at ``final`` already.
    """
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
        if final.exists():
            final.rmdir()
        staging.rename(final)
    except BaseException as error:
        full = shutil.disk_usage(final.parent).free < _FULL_BYTES
        shutil.rmtree(staging, ignore_errors=True)
        if full and isinstance(error, Exception):  # torch and safetensors report it by errors of their own
            raise OutOfSpaceError(f"no space left on the disk of {final}; nothing was written") from error
        raise
