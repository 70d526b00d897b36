"""The speed benchmarks still run, and what they compare is the same work; their numbers are for people."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.common import REPOSITORY


def run(name: str, *options: str) -> dict:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / name), "--repeats", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index('{\n  "benchmark"') :])


@pytest.mark.slow
def test_generation() -> None:
    pytest.importorskip("lm_eval")
    tiny = [
        "--prompts",
        "3",
        "--lengths",
        "mixed",
        "--layers",
        "1",
        "--width",
        "32",
        "--vocabulary",
        "4000",
        "--batch-sizes",
        "25",
    ]
    result = run("generation.py", *tiny)
    assert result["continuations_per_second"].keys() == {"ifguide", "lm-eval, batches of 25"}
    assert result["times_lm_eval"] > 0 and result["samples"] == 25


@pytest.mark.slow
def test_rad() -> None:
    tiny = [
        "--prompts",
        "2",
        "--samples",
        "2",
        "--max-new-tokens",
        "4",
        "--top-k",
        "4",
        "--layers",
        "1",
        "--width",
        "64",
    ]
    result = run("rad.py", *tiny, "--vocabulary", "4000", "--reward-layers", "1", "--reward-width", "64")
    assert result["continuations_per_second"].keys() == {"no RAD", "RAD, cached", "RAD, read anew"}
    assert result["largest_difference_of_rewards"] < 1e-5


@pytest.mark.slow
def test_scoring() -> None:
    pytest.importorskip("detoxify")
    result = run("scoring.py", "--texts", "12", "--layers", "1", "--width", "64", "--batch-sizes", "4")
    assert result["largest_difference"] < 1e-5
    assert result["times_predict"] > 0 and result["tokens"]["max"] > 2 * result["tokens"]["median"]
