"""A GPT-NeoX checkout on disk: where it is, what it is, and making it importable.

Nothing here imports the checkout: that waits until the patch is known to fit (`ifguide_patch.check`).
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from ifguide.errors import InputError

ENVIRONMENT = "GPT_NEOX_PATH"

# import name -> what to install; NeoX imports these while it loads and does not always say so
_REQUIRED = {
    "torch": "torch",
    "deepspeed": "GPT-NeoX's DeeperSpeed, or deepspeed",
    "pkg_resources": "'setuptools<81' (later ones have no pkg_resources)",
    "numpy": "numpy",
    "yaml": "PyYAML",
    "pybind11": "pybind11 (NeoX compiles its index builder with it)",
    "tokenizers": "tokenizers",
    "transformers": "transformers",
    "regex": "regex",
    "ftfy": "ftfy",
    "six": "six",
    "tiktoken": "tiktoken",
}


def resolve(path: str | os.PathLike | None = None) -> Path:
    """The checkout at ``path``, else at ``$GPT_NEOX_PATH``.

    Raises:
        InputError: none is named, or it holds no GPT-NeoX.
    """
    named = os.fspath(path) if path else os.environ.get(ENVIRONMENT)
    if not named:
        raise InputError(f"no GPT-NeoX checkout is named; give its path, or set {ENVIRONMENT}")
    root = Path(named).expanduser().resolve()
    missing = [name for name in ("deepy.py", "train.py", "megatron/training.py") if not (root / name).is_file()]
    if missing:
        raise InputError(f"{root} is not a GPT-NeoX checkout: it has no {', '.join(missing)}")
    return root


def make_importable(root: Path) -> None:
    """Put ``root`` first on the module search path.

    Raises:
        InputError: another ``megatron`` (megatron-core, say) is already imported in this process.
    """
    loaded = sys.modules.get("megatron")
    places = [str(place) for place in getattr(loaded, "__path__", [])]
    if loaded is not None and str(root / "megatron") not in places:
        raise InputError(f"another megatron is already imported, from {', '.join(places)}; use a fresh process")
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))


def missing_requirements() -> list[str]:
    """One line for each module that NeoX imports and this environment lacks."""
    from importlib.util import find_spec

    return [
        f"module {name} is not installed: pip install {package}"
        for name, package in _REQUIRED.items()
        if find_spec(name) is None
    ]


def versions(root: Path) -> dict[str, str]:
    """Name -> version of everything whose change could break the patch."""
    found = {"gpt-neox": revision(root), "python": platform.python_version()}
    for name in ("torch", "deepspeed", "numpy", "transformers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    if _is_deeperspeed():
        found["deepspeed"] += " (DeeperSpeed)"
    return found


def revision(root: Path) -> str:
    """The commit of the checkout, marked where files under version control were edited."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # a copy inside another repository is not that repository's revision
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return "unknown (not a git checkout)"
        edited = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (" (edited)" if edited else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"


def _is_deeperspeed() -> bool:
    """EleutherAI's fork installs under deepspeed's name; only where it came from tells the two apart."""
    try:
        origin = metadata.distribution("deepspeed").read_text("direct_url.json") or ""
    except metadata.PackageNotFoundError:
        return False
    return re.search("deeperspeed", origin, re.IGNORECASE) is not None
