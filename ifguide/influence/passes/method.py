"""The ways to score a batch, and which of them a run takes.

    loss-term   jvp          one forward-mode pass, exact
                difference   two plain passes with moved weights, exact up to a step that is searched first
                auto         the faster of both here (`choice`), if the search reaches the gate, else jvp
    position    the gradient that flows through each position, from all later loss terms

Shapes: K directions, B windows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ifguide.errors import NumericsError
from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction
from ifguide.influence.options import Method
from ifguide.influence.passes.choice import Way, choose_fastest
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.windows import Cutting, Windows
from ifguide.models.precision import tf32_matmuls
from ifguide.models.tracked import ScoredModel
from ifguide.system.files import read_json, write_json

if TYPE_CHECKING:
    from ifguide.influence.passes.step_search import StepSearch

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

    if method.tf32:
        return InTF32(lambda: make_pass(model, directions, replace(method, tf32=False)))
    if method.attribution == "position":
        return PositionPass(model, directions)
    if method.method == "jvp":
        return ForwardModePass(model, directions)
    if method.step is None:
        raise ValueError("a difference needs a step")
    return DifferencePass(model, directions, method.step, one_sided=method.one_sided)


class InTF32:
    """A pass whose float32 matmuls are made in TF32; what is multiplied elsewhere is not."""

    def __init__(self, make: Callable[[], Pass]):
        with tf32_matmuls():
            self.inner = make()

    def scores(self, batch: Batch) -> Tensor:
        with tf32_matmuls():
            return self.inner.scores(batch)

    def first_bad_layer(self, batch: Batch) -> str:
        with tf32_matmuls():
            return self.inner.first_bad_layer(batch)


def settled(method: Method, record: Path, identity: dict[str, Any]) -> Method | None:
    """What ``method`` means if that needs no trial, or if ``record`` knows it of the same run; else None."""
    if not method.searches and not _needs_gate(method):
        # nothing of it is left to chance, and what does not apply shall not make two equal runs differ
        return replace(method, method="jvp", step=None, one_sided=False)
    known = read_json(record, "method") if record.exists() else {}
    return Method(**known["method"]) if known.get("identity") == _asked(method, identity) else None


def settle(
    method: Method,
    model: ScoredModel,
    directions: Sequence[AnyDirection],
    windows: Windows | Cutting,
    batch_tokens: int,
    record: Path,
    identity: dict[str, Any],
    quiet: bool,
) -> Method:
    """Decide how the pass is made, by trials on a sample of ``windows``: the step of a difference, whether TF32 is
    precise enough, and for "auto" which way is the fastest of those that pass the gate.

    The decision is kept in ``record``, so that a run that was killed goes on as it began, and every process of it does
    the same.

    Raises:
        NumericsError: what was asked for by name does not reach the gate.
    """
    from ifguide.influence.passes.step_search import sample_batches, search_step

    known = settled(method, record, identity)
    if known is not None:
        return known
    batches = sample_batches(windows, batch_tokens)
    search: StepSearch | None = None
    ways: list[Way] = []

    def way(made: Method, *agreement: float) -> Way:
        return Way(made, lambda: make_pass(model, directions, made), *agreement)

    plain = replace(method, method="jvp", step=None, one_sided=False, tf32=False)
    if method.method != "difference":
        ways.append(way(plain))
        if method.tf32:
            ways += _in_tf32(way(plain), way(replace(plain, tf32=True)), batches, model)
    if method.searches:
        search = search_step(model, directions, batches, method.one_sided, quiet, method.tf32)
        if search.step is not None:
            made = replace(method, method="difference", step=search.step)
            ways.append(way(made, search.correlation, search.jaccard))
    if method.method != "auto" or method.attribution == "position":
        ways = [each for each in ways if each.method.tf32 == method.tf32]
        if not ways:
            raise NumericsError(_too_coarse(method, search))
    chosen = ways[0].method
    timed: list[dict[str, Any]] = []
    if len(ways) > 1:
        chosen, timed = choose_fastest(ways, batches, model.device, quiet)
    found = {"search": asdict(search)} if search else {}
    write_json(record, {"identity": _asked(method, identity), "method": chosen.record(), **found, "timed": timed})
    return chosen


def _needs_gate(method: Method) -> bool:
    """Of bfloat16 only the head multiplies in TF32, whose weights and states lose nothing by that."""
    return method.tf32 and method.dtype == "float32"


def _asked(method: Method, identity: dict[str, Any]) -> dict[str, Any]:
    return {**identity, "asked": method.record()}


def _in_tf32(exact: Way, fast: Way, batches: Sequence[Batch], model: ScoredModel) -> list[Way]:
    """``fast`` with how far it agrees with ``exact``, if it reaches the gate."""
    from ifguide.influence.passes.step_search import GATE, agreement, reached

    found = agreement(fast.make(), exact.make(), batches, model.device)
    return [replace(fast, correlation=found[0], jaccard=found[1])] if reached(found, GATE) else []


def _too_coarse(method: Method, search: StepSearch | None) -> str:
    if search is None:
        return "TF32 rounds too much for this model: its scores do not agree with those of float32; leave out --tf32"
    return (
        f"no step makes the difference agree with jvp: correlation {search.correlation:.6f}, overlap of the top "
        f"1 % {search.jaccard:.3f} at best; use --method jvp" + (", or leave out --tf32" if method.tf32 else "")
    )
