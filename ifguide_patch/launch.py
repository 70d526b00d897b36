"""``deepy.py`` with a GPT-NeoX checkout: its own launcher, patched, starting its own scripts, patched."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from ifguide.errors import InputError, tell
from ifguide_patch import apply, checkout, cpu, told
from ifguide_patch.save import OVERWRITE_VARIABLE
from ifguide_patch.script import SCRIPT_VARIABLE


def main(path: str | None, argv: Sequence[str], device: str | None = None, overwrite: bool = False) -> int:
    """Run the checkout's ``deepy.py`` with ``argv`` (script, options and files as NeoX takes them).

    Args:
        path: the checkout; None means ``$GPT_NEOX_PATH``.
        device: ``cpu`` for a smoke test without CUDA.
        overwrite: another run in ``save`` may be replaced.

    Returns:
        The exit code: 2 for a checkout or configuration that cannot be used, else the launcher's.
    """
    try:
        root = checkout.resolve(path)
        script, rest = _script(root, argv)
        os.environ[SCRIPT_VARIABLE] = str(script)
        os.environ[OVERWRITE_VARIABLE] = "1" if overwrite else "0"
        if device == "cpu":
            cpu.set_environment()
        apply(root)
        print(f"engine: neox ({root}, {checkout.revision(root)})", flush=True)
        # NeoX wants a script to hand to DeepSpeed: it starts worker.py, which patches and runs the real one
        sys.argv = [str(root / "deepy.py"), str(Path(__file__).with_name("worker.py")), *rest]
        runpy.run_path(sys.argv[0], run_name="__main__")
    except InputError as error:
        tell("deepy.py", error)
        return 2
    except SystemExit as exit_:
        if exit_.code:
            return exit_.code if isinstance(exit_.code, int) else 1
    told.after()
    return 0


def _script(root: Path, argv: Sequence[str]) -> tuple[Path, list[str]]:
    """The script that ``argv`` starts with, as a file, and what follows it.

    ``train.py`` (``eval.py``, ``generate.py``) means the checkout's, from wherever it is typed; another
    path means that file.
    """
    if not argv or argv[0].startswith("-"):
        raise InputError("name the script first: deepy.py train.py -d configs model.yml data.yml")
    for candidate in (root / Path(argv[0]).name, Path(argv[0]).resolve()):
        if candidate.is_file():
            return candidate, list(argv[1:])
    raise InputError(f"{argv[0]} does not exist, neither here nor in {root}")
