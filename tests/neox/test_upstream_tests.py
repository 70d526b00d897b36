"""GPT-NeoX's own CPU tests: those that pass without the patch pass with it.

They run in copies of the checkout. `test_url_accessibility` is left out: it asks the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.neox.harness import ROOT, environment_of

pytestmark = pytest.mark.slow

TIME_LIMIT = 280


def passed(checkout: Path, patched: bool) -> tuple[set[str], str]:
    """Names of the tests that passed, and what was printed."""
    report = checkout / "report.xml"
    # what a user without a GPU has: no answers to torch.cuda
    environment = {key: value for key, value in environment_of(1).items() if key != "IFGUIDE_DEVICE"}
    paths = [str(ROOT), str(Path(__file__).parent)] if patched else [str(checkout)]
    environment |= {"PYTHONPATH": os.pathsep.join(paths)}
    if patched:
        environment["GPT_NEOX_PATH"] = str(checkout)
    command = [
        sys.executable, "-m", "pytest", "-m", "cpu", "tests/neox_args", "tests/unit", "-k", "not url_accessibility",
        "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--junit-xml={report}",
        *(["-p", "upstream_plugin"] if patched else []),
    ]  # fmt: skip
    result = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT)
    assert report.is_file(), result.stdout[-3000:] + result.stderr[-3000:]
    cases = ElementTree.parse(report).iter("testcase")
    names = {f"{case.get('classname')}::{case.get('name')}" for case in cases if not len(case)}
    return names, result.stdout


def test_the_checkouts_own_tests_pass_as_before(neox: Path, tmp_path: Path) -> None:
    results = []
    for patched in (False, True):
        copy = tmp_path / ("patched" if patched else "stock")
        shutil.copytree(neox, copy, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        results.append(passed(copy, patched))
    (before, _), (after, printed) = results
    assert len(before) >= 10
    assert not before - after, printed[-4000:]
