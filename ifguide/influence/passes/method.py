"""The ways to score a batch, and which of them a run takes.

    loss-term   jvp          one forward-mode pass, exact
                difference   two plain passes with moved weights, exact up to a step that is searched first
                auto         difference where the search reaches the gate, else jvp
    position    the gradient that flows through each position, from all later loss terms

Shapes: K directions, B windows, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ifguide.errors import NumericsError
from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction
from ifguide.influence.options import Method
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.windows import Windows
from ifguide.models.tracked import ScoredModel
from ifguide.system.files import read_json, write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

AnyDirection = Direction | dict[str, LowRank]


class Pass(Protocol):
    """Scores of one batch after another along fixed directions."""

    def scores(self, batch: Batch) -> Tensor:
        """``s``[K, B, T], 0 where there is no label; ``batch`` lies on the model's device."""

    def first_bad_layer(self, batch: Batch) -> str:
        """Where the first number of this batch that is not finite appears."""


def make_pass(model: ScoredModel, directions: Sequence[AnyDirection], method: Method) -> Pass:
    """The pass of a settled ``method`` (`settle`)."""
    from ifguide.influence.passes.difference import DifferencePass
    from ifguide.influence.passes.forward_mode import ForwardModePass
    from ifguide.influence.passes.position import PositionPass

    if method.attribution == "position":
        return PositionPass(model, directions)
    if method.method == "jvp":
        return ForwardModePass(model, directions)
    if method.step is None:
        raise ValueError("a difference needs a step")
    return DifferencePass(model, directions, method.step, one_sided=method.one_sided)


def settle(
    method: Method,
    model: ScoredModel,
    directions: Sequence[AnyDirection],
    windows: Windows,
    batch_tokens: int,
    record: Path,
    identity: dict[str, Any],
    quiet: bool,
) -> Method:
    """Decide between jvp and difference, with its step, by a search on a sample of ``windows``.

    The decision is kept in ``record``, so that a run that was killed goes on as it began.

    Raises:
        NumericsError: difference was asked for by name and no step reaches the gate.
    """
    from ifguide.influence.passes.step_search import sample_batches, search_step

    if not method.searches:
        # nothing of it is left to chance, and what does not apply shall not make two equal runs differ
        return Method(method.attribution, "jvp", rank=method.rank, dtype=method.dtype)
    asked = {**identity, "asked": asdict(method)}
    known = read_json(record, "method") if record.exists() else {}
    if known.get("identity") == asked:
        return Method(**known["method"])
    search = search_step(model, directions, sample_batches(windows, batch_tokens), method.one_sided, quiet)
    if search.step is not None:
        settled = Method(method.attribution, "difference", search.step, method.one_sided, method.rank, method.dtype)
    elif method.method == "auto":
        settled = Method(method.attribution, "jvp", rank=method.rank, dtype=method.dtype)
    else:
        raise NumericsError(
            f"no step makes the difference agree with jvp: correlation {search.correlation:.6f}, overlap of the top "
            f"1 % {search.jaccard:.3f} at best; use --method jvp"
        )
    write_json(record, {"identity": asked, "method": asdict(settled), "search": asdict(search)})
    return settled
