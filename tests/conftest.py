"""Shared by all tests: a disk that is soon full, a process group of one, and the GPT-NeoX checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TINY_DISK = 64 * 1024

# GPT_NEOX_PATH would make deepy.py choose NeoX in every test: it is kept under another name, which the
# processes of a parallel run inherit
_CHECKOUT = "IFGUIDE_TEST_NEOX"
if "GPT_NEOX_PATH" in os.environ:
    os.environ[_CHECKOUT] = os.environ.pop("GPT_NEOX_PATH")


@pytest.fixture(scope="session")
def neox() -> Path:
    """The GPT-NeoX checkout that GPT_NEOX_PATH named."""
    if not os.environ.get(_CHECKOUT):
        pytest.skip("GPT_NEOX_PATH names no GPT-NeoX checkout")
    return Path(os.environ[_CHECKOUT]).expanduser().resolve()


@pytest.fixture(scope="session")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One process that talks to itself: training asks for its rank."""
    import torch

    if not torch.distributed.is_initialized():
        store = tmp_path_factory.mktemp("store") / "store"
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)


@pytest.fixture
def tiny_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of `TINY_DISK` bytes."""
    folder = tmp_path_factory.mktemp("disk")
    if not (shutil.which("mount") and shutil.which("umount")):
        pytest.skip("a full disk is shown on a small tmpfs, and there is no mount command")
    if os.sysconf("SC_PAGE_SIZE") != 4096:
        pytest.skip("the sizes that just do not fit are counted in pages of 4096 bytes")
    command = ["mount", "-t", "tmpfs", "-o", f"size={TINY_DISK}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a full disk is shown on a small tmpfs, which cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
