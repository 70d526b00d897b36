"""The hook for GPT-NeoX's eval.py, with a stand-in for the checkout (the real one: tests/neox/test_eval.py)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ifguide.errors import InputError
from ifguide_patch import neox_eval
from tests.support import eval_sets

OLDER = os.environ.get("IFGUIDE_TEST_LM_EVAL")
# what the harness does: match patterns against the registry, build the tasks
EVAL = """
import fnmatch
from lm_eval import tasks

def main():
    found = sorted(fnmatch.filter(tasks.ALL_TASKS, "ifguide_*"))
    print("FOUND", *found)
    print("BUILT", *tasks.get_task_dict(["ifguide_rtp", "ifguide_lambada"]))
"""
ADAPTER = """
def generate_samples_from_prompt(**_): ...

class EvalHarnessAdapter: ...
"""


@pytest.mark.skipif(OLDER is None, reason="IFGUIDE_TEST_LM_EVAL names no Python with lm-eval 0.4.1")
def test_the_checkout_finds_the_tasks(tmp_path: Path) -> None:
    (tmp_path / "eval_tasks").mkdir()
    (tmp_path / "eval_tasks" / "eval_adapter.py").write_text(ADAPTER)
    (tmp_path / "eval.py").write_text(EVAL)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GPT_NEOX_PATH": str(tmp_path),
        "IFGUIDE_EVAL_DATA": str(eval_sets.write_sets(tmp_path / "sets")),
        "IFGUIDE_SCORER": "lexicon",
        "HF_HUB_OFFLINE": "1",
    }
    command = [str(OLDER), neox_eval.__file__, "-d", "configs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    names = ("attaq", "bold", "heldout_ppl", "lambada", "lambada_last_token", "ptp", "rtp", "toxigen")
    assert f"FOUND {' '.join(f'ifguide_{name}' for name in names)}" in done.stdout
    assert "BUILT ifguide_rtp ifguide_lambada" in done.stdout


def test_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_NEOX_PATH", str(tmp_path))
    with pytest.raises(InputError, match="is not a GPT-NeoX checkout"):
        neox_eval.main()
