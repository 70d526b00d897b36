"""Freed memory is kept while asked for and handed back on request (glibc only)."""

import subprocess
import sys

import pytest

CODE = """
import numpy as np
from ifguide.system.processes import _glibc, keep_freed_memory, release_freed_memory
if _glibc() is None:
    raise SystemExit(77)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
keep_freed_memory()
before = resident()
buffer = np.ones(64 << 20, np.uint8)
del buffer
kept = resident() - before
release_freed_memory()
print(kept >> 20, (resident() - before) >> 20)
"""


def test_kept_then_released():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    if result.returncode == 77:
        pytest.skip("the C library is not glibc")
    kept, left = map(int, result.stdout.split())
    assert kept >= 60 and left <= 4
