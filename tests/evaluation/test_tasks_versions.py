"""The same tasks give the same numbers in lm-eval 0.4.1, in 0.4.13, and on two processes of either.

The older lm-eval needs an environment of its own (lm_eval==0.4.1, transformers<5, datasets<3): IFGUIDE_TEST_LM_EVAL
names its Python, else those tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ifguide.system.processes import free_port
from tests.support import eval_sets

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("lm_eval_worker.py")
OLDER = os.environ.get("IFGUIDE_TEST_LM_EVAL")
PYTHONS = {"current": sys.executable, "older": OLDER}
needs_older = pytest.mark.skipif(OLDER is None, reason="IFGUIDE_TEST_LM_EVAL names no Python with lm-eval 0.4.1")
# the sets have odd numbers of prompts: of two processes, one gets its last document padded to 50 continuations
TASKS = "ifguide,ifguide_lambada_last_token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    eval_sets.save_model(folder / "model")
    eval_sets.write_sets(folder / "sets")
    return folder


def evaluate(folder: Path, version: str, processes: int = 1) -> dict[str, Any]:
    """The worker's results; each kind of run is made once."""
    output = folder / f"{version}-{processes}.json"
    if not output.is_file():
        python = PYTHONS[version]
        assert python is not None
        launch = [python] if processes == 1 else [python, "-m", "torch.distributed.run", *_several(processes)]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IFGUIDE_EVAL_DATA": str(folder / "sets"),
            "IFGUIDE_SCORER": "first,second",
            "IFGUIDE_TOKENIZER": str(folder / "model"),
            "OMP_NUM_THREADS": "1",
        }
        command = [*launch, str(WORKER), str(folder / "model"), str(output), TASKS]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text())
    assert found["world_size"] == processes
    return found["results"]


def _several(processes: int) -> list[str]:
    return [f"--nproc_per_node={processes}", f"--master_port={free_port()}"]


def check(one: dict[str, Any], other: dict[str, Any], relative: float) -> None:
    compared = 0
    for task in (
        f"ifguide_{name}" for name in ("rtp", "bold", "attaq", "lambada", "lambada_last_token", "heldout_ppl")
    ):
        # lm-eval's own standard error of LAMBADA's perplexity is resampled at random
        names = [name for name in one[task] if "," in name and "_stderr,none" not in name]
        values = {name: one[task][name] for name in names if isinstance(one[task][name], float)}
        assert {name: other[task][name] for name in values} == pytest.approx(values, rel=relative, nan_ok=True), task
        compared += len(values)
    assert compared > 100


@pytest.mark.slow
@needs_older
def test_both_versions_agree(folder: Path) -> None:
    check(evaluate(folder, "current"), evaluate(folder, "older"), relative=1e-6)


@pytest.mark.slow
def test_two_processes_change_nothing(folder: Path) -> None:
    check(evaluate(folder, "current"), evaluate(folder, "current", processes=2), relative=1e-6)


@pytest.mark.slow
@needs_older
def test_two_processes_of_the_older_version(folder: Path) -> None:
    # it gathers scores in single precision
    check(evaluate(folder, "current"), evaluate(folder, "older", processes=2), relative=2e-5)
