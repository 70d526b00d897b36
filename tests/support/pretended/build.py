"""The extension that answers for the device. Imports no torch: it has to be loaded before torch looks for a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("cuda.cpp")
COUNT = "PRETENDED_GPUS"


class Unavailable(Exception):
    """The extension cannot be made here; says why."""


def build(folder: Path) -> Path:
    """Compile the extension into ``folder``.

    Raises:
        Unavailable: no compiler, no torch with headers, or one that this source does not fit.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise Unavailable("g++ is not installed: the extension that pretends a GPU cannot be compiled")
    torch = _torch()
    if not (torch / "include/ATen/detail/CUDAHooksInterface.h").is_file():
        raise Unavailable("torch is not installed with its headers")
    if (torch / "lib/libtorch_cuda.so").exists():
        raise Unavailable("this torch is a CUDA build: it answers for its devices itself")
    made = folder / "pretended_cuda.so"
    command = [
        compiler, "-std=c++20", "-shared", "-fPIC", "-O0", f"-I{torch / 'include'}", str(SOURCE), "-o", str(made),
        f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch / 'lib'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise Unavailable(f"the extension that pretends a GPU does not compile: {lines[0] if lines else '?'}")
    return made


def load(extension: str | Path, gpus: int = 1) -> None:
    """Make torch, which must not be imported yet, believe in ``gpus`` devices."""
    os.environ[COUNT] = str(gpus)
    # the libraries that the extension registers itself with have to be the ones that torch's Python half will use
    libraries = _torch() / "lib"
    for path in [*sorted(libraries.glob("libgomp*")), libraries / "libc10.so", libraries / "libtorch_cpu.so"]:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(extension))


def _torch() -> Path:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise Unavailable("torch is not installed")
    return Path(found.origin).parent
