"""Without a selected token, the patch changes nothing: not one bit of a loss or a parameter.

The stock runs are in processes where nothing of the patch is active but the answers to ``torch.cuda``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.neox.harness import LAYOUTS, Outcome, run_scenarios, scenario

pytestmark = pytest.mark.slow

# validation and test on the training data: a penalty that leaked would show
EVALUATION = {"eval_interval": 10, "eval_iters": 2}
# weights that never move, so that stock and penalised runs validate the same ones
STILL = {
    "optimizer": {"type": "Adam", "params": {"lr": 0.0, "betas": [0.9, 0.95], "eps": 1e-5}},
    "min_lr": 0.0, "train_iters": 2, "eval_interval": 1, "eval_iters": 2,
}  # fmt: skip
TWO_PARTS = {"gradient_accumulation_steps": 2, "train_micro_batch_size_per_gpu": 2}


def masked(corpus: Path, kind: str, **keys: Any) -> dict[str, Any]:
    return {"train_penalty_data_paths": [f"{corpus}-{kind}"], **keys}


@pytest.fixture(scope="module")
def stock(neox: Path, data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    # validating a pipeline is broken upstream; the patch mends it
    scenarios = []
    for name, layout in LAYOUTS.items():
        evaluation = EVALUATION if name != "pp2" else {}
        still = STILL if name != "pp2" else {**STILL, "eval_iters": 0}
        scenarios.append(scenario(name, data, layout, evaluation, TWO_PARTS))
        scenarios.append(scenario(f"{name}-still", data, layout, still))
    return run_scenarios(neox, tmp_path_factory.mktemp("stock"), scenarios, patched=False)


@pytest.fixture(scope="module")
def patched(
    neox: Path, data: dict[str, Any], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    recompose = masked(corpus, "binary", penalty_lambda=-1.0)
    scenarios = []
    for name, layout in LAYOUTS.items():
        common = (data, layout, EVALUATION if name != "pp2" else {}, TWO_PARTS)
        scenarios += [
            scenario(name, *common),
            scenario(f"{name}-empty", *common, masked(corpus, "empty")),
            scenario(f"{name}-recomposed", *common, recompose),
            scenario(f"{name}-still", data, layout, STILL, masked(corpus, "binary", penalty_lambda=5.0)),
        ]
    scenarios.append(scenario("pp2-still-clean", data, LAYOUTS["pp2"], STILL))
    return run_scenarios(neox, tmp_path_factory.mktemp("patched"), scenarios, patched=True)


def assert_same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, different


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["", "-empty"], ids=["no keys", "a mask that selects nothing"])
def test_every_loss_and_parameter_is_equal_to_the_bit(
    stock: dict[str, Outcome], patched: dict[str, Outcome], layout: str, kind: str
) -> None:
    for before, after in zip(stock[layout].ranks, patched[layout + kind].ranks):
        assert_same_tensors(before["initial"], after["initial"])
        assert_same_tensors(before["final"], after["final"])
        assert before["rates"] == after["rates"]
        if not kind:
            assert [list(step) for step in before["steps"]] == [list(step) for step in after["steps"]]
            for one, other in zip(before["steps"], after["steps"], strict=True):
                assert torch.equal(one["lm_loss"], other["lm_loss"])
        assert before["evaluations"] == after["evaluations"]
    assert len(stock[layout].steps) == 20
    # it learnt something: equal runs that did nothing would prove nothing
    assert stock[layout].series("lm_loss")[-1] < stock[layout].series("lm_loss")[0] - 0.2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_that_selects_nothing_logs_the_stock_loss(
    stock: dict[str, Outcome], patched: dict[str, Outcome], layout: str
) -> None:
    empty = patched[f"{layout}-empty"]
    for name in ("lm_loss", "objective"):
        assert empty.series(name) == pytest.approx(stock[layout].series("lm_loss"), abs=1e-6)
    assert all("penalty_ce" not in step for step in empty.steps)
    assert empty.series("penalty_fraction") == [0.0] * 20


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lambda_minus_one_recomposes_the_stock_loss(
    stock: dict[str, Outcome], patched: dict[str, Outcome], layout: str
) -> None:
    run = patched[f"{layout}-recomposed"]
    assert run.series("objective") == pytest.approx(stock[layout].series("lm_loss"), abs=1e-6)
    before, after = stock[layout].whole("final"), run.whole("final")
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < 1e-5
    # tokens were selected, and split off from the loss of the clean ones
    assert min(run.series("penalty_fraction")) > 0.05
    assert max(abs(a - b) for a, b in zip(run.series("lm_loss"), stock[layout].series("lm_loss"))) > 1e-3


@pytest.mark.parametrize("layout", ["plain", "tp2"])
def test_validation_and_test_see_no_penalty(
    stock: dict[str, Outcome], patched: dict[str, Outcome], layout: str
) -> None:
    before, after = stock[f"{layout}-still"], patched[f"{layout}-still"]
    assert_same_tensors(before.whole("final"), after.whole("final"))
    # after each of two steps, at the end of training, and on the test data
    assert len(before.ranks[0]["evaluations"]) == 4
    assert before.ranks[0]["evaluations"] == after.ranks[0]["evaluations"]
    # the objective of the same weights is far from that
    assert min(after.series("penalty_fraction")) > 0.05
    assert max(after.series("objective")) < before.series("lm_loss")[0] - 1


def test_a_pipeline_validates_without_penalty(patched: dict[str, Outcome]) -> None:
    """Upstream cannot validate a pipeline at all, so the patched run without a penalty stands for stock."""
    clean, run = patched["pp2-still-clean"], patched["pp2-still"]
    assert_same_tensors(clean.whole("final"), run.whole("final"))
    assert len(run.ranks[0]["evaluations"]) == 4
    assert [rank["evaluations"] for rank in run.ranks] == [rank["evaluations"] for rank in clean.ranks]
    assert max(run.series("objective")) < clean.series("lm_loss")[0] - 1
