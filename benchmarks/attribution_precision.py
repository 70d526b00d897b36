"""What fewer digits cost on a GPU: jvp in bf16, difference in fp32 and with TF32 products, against jvp in fp32.

Runs on a CPU too, without the rows that need a GPU, so that it is known to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attribution_case import DIFFERENCE, JVP, STEP, agreement, make_scorer, open_model, random_batch
from attribution_flops import flops_per_token, matmul_rate, multiplied
from attribution_speed import Setting
from common import median_time

from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction
from ifguide.influence.passes.step_search import search_step
from ifguide.models.tracked import ScoredModel

_BILLION = 1e9


def precisions(setting: Setting, direction: Direction) -> dict[str, Any]:
    """Rate, agreement with fp32 jvp, share of the matmul rate of that precision, hours for a billion tokens."""
    batch = random_batch(setting.shape, setting.windows, setting.device)
    rows = [(JVP, "float32", "highest"), (DIFFERENCE, "float32", "highest"), (JVP, "bfloat16", "highest")]
    if setting.device == "cuda":
        rows += [(JVP, "float32", "high"), (DIFFERENCE, "float32", "high")]
    found: dict[str, Any] = {}
    exact: torch.Tensor | None = None
    for way, dtype, products in rows:
        model = open_model(setting.folder, setting.device, dtype)
        with multiplied(products):
            step, search = _step(model, direction, batch) if way == DIFFERENCE else (STEP, {})
            scorer = make_scorer(way, model, [direction], setting.rank, step)
            scores = scorer.scores(batch)[0]
            exact = scores if exact is None else exact
            seconds = median_time(_wait(lambda scorer=scorer: scorer.scores(batch), setting), setting.repeats).median
            rate = matmul_rate(setting.device, dtype, setting.synchronize)
        tokens_per_second = setting.tokens / seconds
        flops = flops_per_token(setting.shape, setting.rank)[way]
        name = "TF32" if products == "high" else {"float32": "fp32", "bfloat16": "bf16"}[dtype]
        found[f"{way}, {name}"] = {
            "tokens_per_second": round(tokens_per_second, 1),
            "matmul_tflops": round(rate / 1e12, 3),
            "share_of_matmul_rate": round(flops * tokens_per_second / rate, 3),
            "hours_for_a_billion_tokens": round(_BILLION / tokens_per_second / 3600, 3),
            "agreement_with_fp32_jvp": agreement(scores, exact),
            **search,
        }
    return {"batch_tokens": setting.tokens, "ways": found}


def _step(model: ScoredModel, direction: Direction, batch: Batch) -> tuple[float, dict[str, Any]]:
    """The best step for this precision, and what the search says about it."""
    search = search_step(model, [direction], [batch])
    step = search.step or max(search.table, key=lambda row: row["correlation"][0])["step"]
    return step, {"step": step, "step_passes_the_gate": search.step is not None}


def _wait(work: Callable[[], object], setting: Setting) -> Callable[[], None]:
    def run() -> None:
        work()
        setting.synchronize()

    return run
