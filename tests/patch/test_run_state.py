"""What the patch remembers of a run is one object, which a fresh process and an undone patch have empty."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ifguide_patch
from ifguide_patch.run_state import RunState, Step, state
from tests.patch.checkouts import ROOT

MODULES = sorted(Path(ifguide_patch.__file__).parent.rglob("*.py"))


def test_nothing_else_changes_while_a_run_goes_on() -> None:
    rebound = [
        f"{path.name}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Global, ast.Nonlocal))
    ]
    assert len(MODULES) > 15 and rebound == []


def test_forgetting_is_being_new() -> None:
    used = RunState(root=Path("/checkout"), building=object(), step=Step("ascent", None, 1.0, True), announced={})
    assert used != RunState()
    used.forget()
    assert used == RunState()


def test_undoing_forgets_the_run(monkeypatch) -> None:
    monkeypatch.setattr(state, "announced", {"save": "runs"})
    monkeypatch.setattr(state, "step", Step("clipped", 5.0, 1.0, True))
    ifguide_patch.undo()
    assert state == RunState()


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import ifguide_patch, ifguide_patch.check, ifguide_patch.run_state\n"
        "from ifguide_patch.training import batch, dataset, loss, metrics, pipeline_validation\n"
        "print(callable(ifguide_patch.apply), callable(ifguide_patch.undo))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.split() == ["True", "True"], result.stderr[-2000:]
