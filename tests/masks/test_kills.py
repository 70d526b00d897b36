"""SIGKILL at random moments: the same command then ends as if nothing had happened (`benchmarks/kills.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# a command that leaves a file of its own behind
_UNTIDY = """
import os, ifguide.masks.build as build
check = build.check_arguments
def untidy(behaviours, outputs, *others):
    open(f"{outputs[0]}.{os.getpid()}.tmp", "w").close()
    check(behaviours, outputs, *others)
build.check_arguments = untidy
"""


def run_kills(folder: Path, kills: int, before: str = "") -> tuple[int, dict]:
    """Exit code and result of the benchmark, with ``before`` run first."""
    code = (
        f"import sys; sys.argv[1:] = ['--verb', 'build-mask', '--kills', '{kills}', '--seed', '1']\n{before}\n"
        "from benchmarks.kills import main\nsys.exit(main())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["build-mask"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kills strike forked processes")
def test_build_mask_survives_kills(tmp_path):
    status, result = run_kills(tmp_path, 10)
    assert status == 0 and result["faults"] == [] and result["kills"] >= 10
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kills strike forked processes")
def test_a_stray_file_is_caught(tmp_path):
    status, result = run_kills(tmp_path, 1, _UNTIDY)
    assert status == 1 and "another result" in result["faults"][0] and ".tmp" in result["faults"][0]
