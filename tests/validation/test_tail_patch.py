"""The tail patch against AdamW written out in fp64, with the moments that the checkpoint holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ifguide.engine.schedule import learning_rate
from ifguide.errors import ConfigError, InputError
from ifguide.validation.margin import log_likelihoods
from ifguide.validation.rankings import Ranking, eod_of
from ifguide.validation.tail_patch import _settings, check_checkpoint, learning_rate_of, run_tail_patch
from tests.validation.conftest import Case

B1, B2, EPS, DECAY, CLIP = 0.9, 0.95, 1e-8, 0.1, 1.0


def mean_loss(case: Case, model: torch.nn.Module, places: np.ndarray) -> torch.Tensor:
    """Σ l_j / |D|, one document at a time after one EOD: shorter than a window or cut as scores are."""
    from ifguide.influence.windows import cut, default_context

    windows = cut(case.tokens, eod_of(case.run), 16, default_context(16))
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for window in range(len(windows)):
        batch = windows.batch(np.array([window]))
        where = windows.places(np.array([window]))
        logits = model(input_ids=batch.inputs).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, batch.labels[0], reduction="none")
        labelled = losses[batch.labelled[0]]
        inside = torch.from_numpy(np.isin(where, places))
        total = total + labelled[inside].sum()
        count += int(inside.sum())
    assert count == len(places)
    return total / count


def literal_margin(case: Case, places: np.ndarray, rate: float) -> float:
    """The margin after one AdamW step: decoupled decay of matrices, clipping by the global norm, moments continued."""
    state = torch.load(case.run.folder / "global_step10/mp_rank_00_model_states.pt", weights_only=False)
    model = AutoModelForCausalLM.from_pretrained(case.run.model, dtype=torch.float64).eval()
    parameters = [p for p in model.parameters() if p.dim() > 1] + [p for p in model.parameters() if p.dim() <= 1]
    if len(places):
        mean_loss(case, model, places).backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    moments = state["optimizer"]["state"]
    with torch.no_grad():
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients)):
            gradient = gradient * min(1.0, CLIP / (norm + 1e-6))
            step = float(moments[number]["step"]) + 1
            assert step == 11
            first = B1 * moments[number]["exp_avg"].double() + (1 - B1) * gradient
            second = B2 * moments[number]["exp_avg_sq"].double() + (1 - B2) * gradient**2
            if parameter.dim() > 1:
                parameter *= 1 - rate * DECAY
            root = (second / (1 - B2**step)).sqrt() + EPS
            parameter -= rate * (first / (1 - B1**step)) / root
    return log_likelihoods(model, case.queries).margin(case.queries)


def test_a_step_is_adamw_with_the_moments_of_the_checkpoint(case: Case, process_group: None) -> None:
    random = np.random.default_rng(0)
    sets = [np.sort(random.choice(case.tokens.num_tokens, size, replace=False)) for size in (3, 40, 200, 90, 11)]
    scores = np.random.default_rng(1).standard_normal(case.tokens.num_tokens)
    rankings = [
        Ranking("scores", lambda places: scores[places]),
        Ranking("reversed", lambda places: -scores[places]),
    ]
    found = run_tail_patch(case.run, rankings, sets, case.queries, resamples=200)
    rate = learning_rate(_settings(case.run), 10, 10)
    assert found["learning_rate"] == rate > 0
    before = AutoModelForCausalLM.from_pretrained(case.run.model, dtype=torch.float64)
    start = log_likelihoods(before, case.queries).margin(case.queries)
    assert found["before"] == pytest.approx(start, rel=1e-6)
    idle = literal_margin(case, np.zeros(0, np.int64), rate) - start
    assert found["idle"] == pytest.approx(idle, rel=1e-4) and abs(idle) > 1e-4
    expected = [literal_margin(case, places, rate) - start - idle for places in sets]
    np.testing.assert_allclose(found["changes"][0], expected, rtol=1e-3, atol=2e-6)
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(found["rankings"]["scores"]["prediction"], [scores[places].sum() for places in sets])
    assert found["rankings"]["reversed"]["rho"] == pytest.approx(-found["rankings"]["scores"]["rho"])
    assert found["ceiling"] is None


def test_a_rate_of_zero_and_a_checkpoint_that_is_gone_are_refused(case: Case, tmp_path) -> None:
    from dataclasses import replace

    run = case.run
    ended = replace(run, keys={**run.keys, "lr_decay_style": "linear", "min_lr": 0.0, "lr_decay_iters": 5})
    with pytest.raises(InputError, match=r"had fallen to 0 at the end.*give --learning-rate, its highest was 0\.01"):
        learning_rate_of(ended)
    with pytest.raises(InputError, match="its checkpoint is gone"):
        check_checkpoint(replace(run, folder=tmp_path))
    spread = replace(run, keys={**run.keys, "num_gpus": 2, "zero_optimization": {"stage": 1}})
    with pytest.raises(ConfigError, match="ZeRO stage 1 on 2 processes"):
        check_checkpoint(spread)
