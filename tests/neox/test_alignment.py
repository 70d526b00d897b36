"""A penalty that acted one token early or late would show here at a glance.

The text alternates a random letter of eight and a fixed one. With the mask on the fixed letter, the model must
come to expect it less than without, and still know that one of eight letters follows it.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.neox.corpora import FIXED, write_alternating
from tests.neox.harness import LAYOUTS, Outcome, run_scenarios, scenario
from tests.neox.reference import read_documents, token_losses

pytestmark = pytest.mark.slow

LEARN = {
    "optimizer": {"type": "Adam", "params": {"lr": 0.02, "betas": [0.9, 0.95], "eps": 1e-5}},
    "min_lr": 0.002, "train_iters": 60, "lr_decay_iters": 60,
}  # fmt: skip
PUSH = {"penalty_form": "clipped", "penalty_clip": 8.0, "penalty_lambda": 1.0}


@pytest.fixture(scope="module")
def alternating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_alternating(tmp_path_factory.mktemp("alternating"))


@pytest.fixture(scope="module")
def costs(neox: Path, alternating: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    """Name of a run -> what the fixed and the random letters cost the trained model, in nats."""
    paths = [str(alternating)]
    data = {"train_data_paths": paths, "valid_data_paths": paths, "test_data_paths": paths}
    runs = []
    for name, layout in LAYOUTS.items():
        runs.append(scenario(f"{name}-none", data, layout, LEARN))
        for mask in ("fixed", "shifted"):
            penalty = {**PUSH, "train_penalty_data_paths": [f"{alternating}-{mask}"]}
            runs.append(scenario(f"{name}-{mask}", data, layout, LEARN, penalty))
    outcomes = run_scenarios(neox, tmp_path_factory.mktemp("runs"), runs, patched=True)
    documents = torch.tensor(read_documents(str(alternating))[:20])[:, :33]
    return {name: letter_costs(outcome, documents) for name, outcome in outcomes.items()}


def letter_costs(run: Outcome, documents: torch.Tensor) -> tuple[float, float]:
    parameters = {name: value.double() for name, value in run.whole("final").items()}
    with torch.no_grad():
        losses = token_losses(parameters, run.config, documents[:, :-1], documents[:, 1:])
    fixed = documents[:, 1:] == FIXED
    return float(losses[fixed].mean()), float(losses[~fixed].mean())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_masked_letter_becomes_unlikely(costs: dict[str, tuple[float, float]], layout: str) -> None:
    fixed, random = costs[f"{layout}-none"]
    assert fixed < 0.3 and random < math.log(8) + 0.5, "without a penalty the model learns the text"
    fixed, random = costs[f"{layout}-fixed"]
    assert fixed > 5 and random < math.log(8) + 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_one_token_late_does_the_opposite(costs: dict[str, tuple[float, float]], layout: str) -> None:
    fixed, random = costs[f"{layout}-shifted"]
    assert fixed < 0.3 and random > 5
