"""``deepy.py`` with a GPT-NeoX checkout: its own launcher, patched, starting its own scripts, patched."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ifguide.config.yaml_files import fallback
from ifguide.errors import InputError, tell
from ifguide_patch import apply, checkout, cpu, told
from ifguide_patch.save import OVERWRITE_VARIABLE
from ifguide_patch.script import DRY_RUN_VARIABLE, SCORING, SCRIPT_VARIABLE


def main(
    path: str | None, argv: Sequence[str], device: str | None = None, overwrite: bool = False, dry_run: bool = False
) -> int:
    """Run the checkout's ``deepy.py`` with ``argv`` (script, options and files as NeoX takes them).

    Args:
        path: the checkout; None means ``$GPT_NEOX_PATH``.
        device: ``cpu`` for a smoke test without CUDA.
        overwrite: another run in ``save`` may be replaced.
        dry_run: check everything, and start and change nothing.

    Returns:
        The exit code: 2 for a checkout or configuration that cannot be used, else the launcher's.
    """
    try:
        root = checkout.resolve(path)
        script, rest = _script(root, argv)
        os.environ[SCRIPT_VARIABLE] = str(script)
        os.environ[OVERWRITE_VARIABLE] = "1" if overwrite else "0"
        os.environ[DRY_RUN_VARIABLE] = "1" if dry_run else "0"
        if device == "cpu":
            cpu.set_environment()
        apply(root)
        print(f"engine: neox ({root}, {checkout.revision(root)})", flush=True)
        # NeoX wants a script to hand to DeepSpeed: it starts worker.py, which patches and runs the real one
        sys.argv = [str(root / "deepy.py"), str(Path(__file__).with_name("worker.py")), *_found(rest)]
        runpy.run_path(sys.argv[0], run_name="__main__")
    except InputError as error:
        tell("deepy.py", error)
        return 2
    except SystemExit as exit_:
        if exit_.code:
            return exit_.code if isinstance(exit_.code, int) else 1
    if not dry_run:
        told.after()
    return 0


def _found(argv: Sequence[str]) -> list[str]:
    """``argv`` with the configuration files that are not below ``-d`` but here, by their whole paths."""
    folder = next((later for word, later in pairwise(argv) if word in ("-d", "--conf_dir")), None)
    if folder is None:
        return list(argv)
    words = list(argv)
    for place, (before, word) in enumerate(pairwise(["", *argv])):
        if not (before.startswith("-") or word.startswith("-")) and (path := fallback(word, folder)):
            words[place] = str(path.absolute())
    return words


def _script(root: Path, argv: Sequence[str]) -> tuple[Path, list[str]]:
    """The script that ``argv`` starts with, as a file, and what follows it.

    ``train.py`` (``eval.py``, ``generate.py``) means the checkout's, from wherever it is typed; another
    path means that file. ``score.py`` is ours, which GPT-NeoX has no counterpart of.
    """
    if not argv or argv[0].startswith("-"):
        raise InputError("name the script first: deepy.py train.py -d configs model.yml data.yml")
    if argv[0] == SCORING:
        return Path(__file__).with_name(SCORING), list(argv[1:])
    for candidate in (root / Path(argv[0]).name, Path(argv[0]).resolve()):
        if candidate.is_file():
            return candidate, list(argv[1:])
    raise InputError(f"{argv[0]} does not exist, neither here nor in {root}")
