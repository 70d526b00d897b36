"""The base install on every Python that it is promised for: numpy, PyYAML and nothing else.

Each interpreter that is found (by its name on PATH, or pyenv's) gets an environment of its own with the locked numpy
and PyYAML; `base_worker` runs there every command that needs no torch, and answers the same everywhere.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ifguide.requirements import lock
from ifguide.requirements.ranges import record

ROOT = Path(__file__).parents[2]
PYTHONS = record()["python"]["base"]

# an index is asked for the two packages; pip's own retries would hold up a machine without one for minutes
_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "15")


def interpreter(version: str) -> str | None:
    """A Python of this minor version: pyenv's first, whose shims on PATH may lead nowhere."""
    roots = filter(None, (os.environ.get("PYENV_ROOT"), "~/.pyenv"))
    found = [
        path for root in roots for path in Path(root).expanduser().glob(f"versions/{version}.*/bin/python{version}")
    ]
    for candidate in (*map(str, sorted(found)), shutil.which(f"python{version}")):
        if candidate is None:
            continue
        asked = subprocess.run([candidate, "-c", "import venv, sys; print(*sys.version_info[:2], sep='.')"],
                               capture_output=True, text=True)  # fmt: skip
        if asked.stdout.strip() == version:
            return candidate
    return None


@pytest.fixture(scope="session")
def answer_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The function from a Python version to what `base_worker` says there; once a version."""

    @functools.cache
    def answer(version: str) -> dict[str, Any] | str:
        python = interpreter(version)
        if python is None:
            return f"no Python {version} is on PATH or among pyenv's versions"
        folder = tmp_path_factory.mktemp(f"python{version}")
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
        inside = str(folder / "venv" / "bin" / "python")
        (folder / "base.txt").write_text(lock.part(["numpy", "PyYAML"]))
        installed = subprocess.run(
            [inside, *_PIP, "install", "--no-deps", "--require-hashes", "-r", str(folder / "base.txt")],
            capture_output=True, text=True,
        )  # fmt: skip
        if installed.returncode:
            said = installed.stderr.strip().splitlines()
            if any("hash" in line.lower() for line in said):
                pytest.fail(installed.stderr)
            return (
                f"pip cannot install numpy and PyYAML for Python {version}: {said[-1] if said else 'no reason given'}"
            )
        work = folder / "work"
        work.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
        # a cache of compiled code inside the tree would be written by every version in turn
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        worker = ROOT / "tests" / "requirements" / "base_worker.py"
        done = subprocess.run([inside, str(worker)], capture_output=True, text=True, cwd=work, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return answer


@pytest.mark.parametrize("version", PYTHONS)
def test_the_base_install_works(version: str, answer_of: Any) -> None:
    found = answer_of(version)
    if isinstance(found, str):
        pytest.skip(found)
    assert found["python"] == [int(part) for part in version.split(".")]
    assert found["heavy"] == [], "the environment is to have numpy and PyYAML only"
    assert found["verify"] and found["provenance"] and found["build-mask"] == 14
    assert "14 of 76 tokens selected" in found["inspect"] and "14 of 76 tokens selected" in found["mask-stats"]
    assert found["doctor"] == []


def test_every_python_writes_the_same_files(answer_of: Any) -> None:
    answers = {version: found for version in PYTHONS if isinstance(found := answer_of(version), dict)}
    if len(answers) < 2:
        pytest.skip(f"a comparison needs two Pythons; found: {', '.join(answers) or 'none'}")
    first, *others = answers.values()
    for other in others:
        assert other["written"] == first["written"]
        assert (other["inspect"], other["mask-stats"]) == (first["inspect"], first["mask-stats"])


def test_this_python_is_found_by_its_version() -> None:
    version = "{}.{}".format(*sys.version_info)
    if version not in PYTHONS:
        pytest.skip(f"Python {version} is not promised")
    found = interpreter(version)
    if found is None:
        pytest.skip(f"Python {version} has no name on PATH")
    asked = subprocess.run([found, "-c", "import sys; print(sys.version_info[1])"], capture_output=True, text=True)
    assert asked.stdout.strip() == str(sys.version_info[1])
