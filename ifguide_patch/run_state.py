"""What the patch knows of the run that this process is part of.

The functions that it replaces are GPT-NeoX's, which hands them no object of ours: so there is one, `state`, and nothing
else in the patch changes while a run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifguide_patch.journal import Journal

# torch comes with the first training step: the patch and its check can be looked at where there is none
if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Step:
    """One training step: how hard to penalise, and the sums of its micro-batches on this rank.

    Attributes:
        form, clip: of the penalty, as in `ifguide.objectives.penalised`.
        penalty_lambda: λ of this step.
        sums: float64[5] of `ifguide.objectives.penalised.penalty_statistics`; None before the first micro-batch.
        log: False spares the sums.
    """

    form: str
    clip: float | None
    penalty_lambda: float
    log: bool
    sums: Tensor | None = field(default=None)


@dataclass
class TokenLosses:
    """The per-token losses of the micro-batches that are going through the model, in the order in which they come.

    Attributes:
        weights: what each token's loss counts, one [B, T] a micro-batch; None where nothing goes back.
        kept: detached losses, one [B, T] a micro-batch.
    """

    weights: list[Tensor] | None = None
    kept: list[Tensor] = field(default_factory=list)


@dataclass
class RunState:
    """One run, in one process.

    Attributes:
        journal: of the patch that is applied; None without one.
        root: of the checkout that is patched.
        announced: the configuration, keys of the YAML files, of the training that the launcher has announced.
        building: the configuration whose data loaders are being built: ``GPT2Dataset`` is not told it.
        hidden: id that is read in place of selected tokens in training; None where they are read as they are.
        undrawn: the same id, while a continuation is drawn; None otherwise.
        scored: of the batch whose tokens are being scored; None otherwise.
        step: the training step that is going on; None in validation, test and generation.
        interval: float64[5], sums of the iterations since the last printed line, the same on every rank; None before
            the first.
    """

    journal: Journal | None = None
    root: Path | None = None
    announced: Mapping[str, Any] | None = None
    building: Any = None
    hidden: int | None = None
    undrawn: int | None = None
    scored: TokenLosses | None = None
    step: Step | None = None
    interval: Tensor | None = None

    def forget(self) -> None:
        """Be as in a fresh process."""
        for each in fields(self):
            setattr(self, each.name, None)


state = RunState()
