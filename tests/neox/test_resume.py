"""A run that is killed and resumed, or that fine-tunes from a checkpoint, is the run it should be."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ifguide.system.processes import free_port
from tests.neox.harness import LAYOUTS, MODEL, PLAIN, Outcome, deepy, environment_of, run_scenarios, scenario
from tests.neox.reference import Reference

pytestmark = pytest.mark.slow

HALF = 8
# λ still rises when the run stops
WARMUP = 14
LONG, EVERY = 60, 20


def penalised(corpus: Path) -> dict[str, Any]:
    return {
        "train_penalty_data_paths": [f"{corpus}-graded"], "penalty_lambda": 0.6, "penalty_warmup_iters": WARMUP,
        "checkpoint_factor": HALF,
    }  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(
    neox: Path, data: dict[str, Any], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("runs")
    scenarios = []
    for name, layout in LAYOUTS.items():
        common = (data, layout, penalised(corpus))
        saved = {"save": str(folder / f"checkpoint-{name}")}
        loaded = {"load": saved["save"]}
        scenarios += [
            scenario(f"{name}-whole", *common),
            scenario(f"{name}-interrupted", *common, saved, {"exit_interval": HALF}),
            scenario(f"{name}-resumed", *common, loaded),
            scenario(f"{name}-finetuned", *common, loaded, {"finetune": True, "train_iters": 10}),
        ]
    return run_scenarios(neox, folder, scenarios, patched=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_resumed_is_uninterrupted(outcomes: dict[str, Outcome], layout: str) -> None:
    whole, first, second = (outcomes[f"{layout}-{part}"] for part in ("whole", "interrupted", "resumed"))
    for key in ("objective", "lm_loss", "penalty_ce", "penalty_fraction"):
        assert first.series(key) + second.series(key) == whole.series(key)
    assert first.ranks[0]["rates"] + second.ranks[0]["rates"] == whole.ranks[0]["rates"]
    assert len(first.steps) == HALF
    for one, other in zip(second.ranks, whole.ranks):
        assert all(torch.equal(one["final"][name], other["final"][name]) for name in other["final"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_finetuning_starts_anew_from_the_weights(outcomes: dict[str, Outcome], layout: str) -> None:
    """Iteration, optimizer, learning rate and λ start at the beginning; the weights are the checkpoint's."""
    run = outcomes[f"{layout}-finetuned"]
    start, saved = run.whole("initial"), outcomes[f"{layout}-interrupted"].whole("final")
    assert all(torch.equal(start[name], saved[name]) for name in saved)
    reference = Reference(run.config, start, 2, run.uncounted())
    expected = reference.train(10)
    assert run.series("objective") == pytest.approx([step.objective for step in expected], abs=1e-5)
    final = run.whole("final")
    assert max(float((final[name] - value.detach()).abs().max()) for name, value in reference.parameters.items()) < 1e-5


def test_a_killed_run_ends_as_an_undisturbed_one(
    neox: Path, data: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    """Started by deepy.py as users do; every process is ended by SIGKILL in the middle of a step."""
    # a bounded form: ascent would push the loss of a tiny model to minus infinity in so many steps
    bounded = {"penalty_form": "unlikelihood", "train_iters": LONG, "lr_decay_iters": LONG, "checkpoint_factor": EVERY}
    keys = {**MODEL, **data, **penalised(corpus), **PLAIN, **bounded}
    undisturbed, killed = ({**keys, "save": str(tmp_path / name)} for name in ("undisturbed", "killed"))
    for config, until in ((undisturbed, 0), (killed, EVERY + 5), ({**killed, "load": killed["save"]}, 0)):
        config["master_port"] = free_port()
        launch(deepy(neox, tmp_path, {"all": config}), tmp_path, until)
        if until:
            assert (tmp_path / "killed" / "latest").read_text().strip() == f"global_step{EVERY}"
    parameters = [model_of(tmp_path / name / f"global_step{LONG}") for name in ("undisturbed", "killed")]
    assert parameters[0].keys() == parameters[1].keys()
    # a fresh process holds the loaded weights at other addresses, and sums them in another order
    differences = [float((parameters[0][name] - parameters[1][name]).abs().max()) for name in parameters[0]]
    assert max(differences) < 1e-6


def launch(command: list[str], folder: Path, until: int) -> None:
    """Wait for the end, or (``until``) kill everything once that iteration was printed."""
    printed = folder / "printed.txt"
    with printed.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment_of(2), stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                if until and f"iteration {until:8d}/" in printed.read_text():
                    break
                time.sleep(0.02)
        finally:
            for pid in descendants(process.pid):
                os.kill(pid, signal.SIGKILL)
            if process.poll() is None:
                process.kill()
            process.wait()
    assert until or process.returncode == 0, printed.read_text()[-4000:]


def descendants(pid: int) -> list[int]:
    """All processes that ``pid`` started, directly or not; found in /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        children = [child for child, owner in parents.items() if owner == parent]
        found += children
        waiting += children
    return found


def model_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    (states,) = checkpoint.glob("mp_rank_00_model_states.pt")
    return torch.load(states, weights_only=False, map_location="cpu")["module"]
