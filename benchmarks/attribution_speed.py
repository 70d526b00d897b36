"""Seconds of one batch: a plain forward pass, a training step, every way of this project, kronfluence and bergson.

All take turns in one process, on the same tokens, along the same direction, with the fused attention but for jvp
(which has one of its own) and bergson (which asks for the eager one).

Shapes: B windows, T positions, N labelled positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from attribution_bergson import INSTALL, bergson_scores
from attribution_case import (
    JVP,
    OURS,
    POSITION,
    Shape,
    agreement,
    make_scorer,
    open_model,
    plain_forward,
    random_batch,
)  # fmt: skip
from attribution_flops import flops_per_token, matmul_rate
from attribution_kronfluence import Kronfluence
from common import Timing, time_alternating

from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction
from ifguide.models.tracked import label_losses


@dataclass(frozen=True)
class Setting:
    """What every section of the benchmark needs.

    Attributes:
        folder: the model's; temporary, others may write beside it.
        windows: of a batch.
        rank: of the low-rank direction.
    """

    folder: Path
    shape: Shape
    device: str
    windows: int
    repeats: int
    rank: int

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    @property
    def tokens(self) -> int:
        return self.windows * self.shape.window


def speed(setting: Setting, directions: Sequence[Direction], theirs: Kronfluence) -> dict[str, Any]:
    """Medians, ratios to a plain forward pass, tokens/s, and shares of the machine's matmul rate.

    Args:
        directions: four; the first is everybody's.
    """
    model = open_model(setting.folder, setting.device)
    batch = random_batch(setting.shape, setting.windows, setting.device)
    scorers = {way: make_scorer(way, model, directions, setting.rank) for way in OURS}
    works: dict[str, Callable[[], object]] = {
        "plain forward": lambda: plain_forward(model, batch),
        "training step": _training_step(setting, batch),
    }
    works |= {way: lambda scorer=scorer: scorer.scores(batch) for way, scorer in scorers.items()}
    theirs.use(directions[0])
    works["kronfluence"] = lambda: theirs.scores(batch)
    bergson: dict[str, Any] = {}
    try:
        eager = open_model(setting.folder, setting.device, attention="eager")
        bergson["version"], forward_mode = bergson_scores(eager, directions[0], setting.folder)
        forward_mode(batch)
        works["bergson"] = lambda: forward_mode(batch)
    except (ImportError, RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        bergson |= {"not_timed": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}", "install": INSTALL}

    exact, position = (scorers[way].scores(batch)[0] for way in (JVP, POSITION))
    agreed = {"kronfluence with position": agreement(theirs.scores(batch), position)}
    if "bergson" in works:
        agreed["bergson with jvp"] = agreement(forward_mode(batch), exact[:, :-1])
    agreed |= {
        f"{way} with jvp": agreement(scorers[way].scores(batch)[0], exact) for way in OURS if way not in (JVP, POSITION)
    }

    theirs.scoring_seconds.clear()
    timings = time_alternating(_synchronized(works, setting), setting.repeats)
    timings["kronfluence"] = Timing(theirs.scoring_seconds[-setting.repeats :])
    return {
        "batch": {"windows": setting.windows, "tokens": setting.tokens},
        "timings": {name: timing.as_dict() for name, timing in timings.items()},
        "forwards": {name: round(t.median / timings["plain forward"].median, 3) for name, t in timings.items()},
        "tokens_per_second": {name: round(setting.tokens / t.median, 1) for name, t in timings.items()},
        "flops": _flops(setting, timings),
        "agreement": agreed,
        "bergson": bergson,
    }


def _training_step(setting: Setting, batch: Batch) -> Callable[[], None]:
    """Forward, backward and AdamW on all parameters of a model of its own."""
    model = open_model(setting.folder, setting.device)
    model.model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=1e-5)

    def step() -> None:
        logits = model.logits(model.hidden(batch.inputs)[batch.labelled])
        label_losses(logits, batch.labels[batch.labelled]).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _synchronized(works: dict[str, Callable[[], object]], setting: Setting) -> dict[str, Callable[[], object]]:
    def wait(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            setting.synchronize()

        return run

    return {name: wait(work) for name, work in works.items()}


def _flops(setting: Setting, timings: dict[str, Timing]) -> dict[str, Any]:
    """What each way computes, what that makes it cost at least, and how near it comes to the matmul rate."""
    rate = matmul_rate(setting.device, "float32", setting.synchronize)
    per_token = flops_per_token(setting.shape, setting.rank)
    plain = per_token["plain forward"]
    ways = {
        name: {
            "gflop_per_token": round(per_token[name] / 1e9, 6),
            "forwards_at_least": round(per_token[name] / plain, 2),
            "share_of_matmul_rate": round(per_token[name] * setting.tokens / timing.median / rate, 3),
        }
        for name, timing in timings.items()
    }
    return {"matmul_gflops": round(rate / 1e9, 1), "ways": ways}
