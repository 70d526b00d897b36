"""(M1) by GPT-NeoX's own backward, one signed pass over the queries of both sets:

    g = Σ_q w_q ∇l_q / Σ w_q (toxic)  -  Σ_q w_q ∇l_q / Σ w_q (safe),    v = H~^-1 g

Gradients leave the processes layer by layer, are joined to the matrices of the Hugging Face form, and are
preconditioned there; what is saved is the same file that ``ifguide score`` would write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction, precondition, require_finite, signed_batches
from ifguide.influence.neox import matrices, tracked_shapes
from ifguide.influence.queries import Query
from ifguide_patch.scoring.model import ParallelModel
from ifguide_patch.scoring.replica import Replica
from ifguide_patch.scoring.setup import Setup


def text_of(batch: Batch) -> Tensor:
    """The sequences of ``batch`` as GPT-NeoX reads them: int64[B, T + 1], the last label behind its inputs."""
    text = torch.cat([batch.inputs, torch.zeros_like(batch.inputs[:, :1])], dim=1)
    rows = torch.arange(len(text))
    ends = batch.real.sum(dim=1)
    text[rows, ends] = batch.labels[rows, ends - 1]
    return text


def weighted_batches(
    toxic: Sequence[Query], safe: Sequence[Query], batch_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(text[B, T + 1], weights[B, T]) of all queries: what each label's loss counts in ``g``."""
    for queries, sign in ((toxic, 1.0), (safe, -1.0)):
        if not queries:
            continue
        for batch, shares in signed_batches([(queries, sign)], batch_tokens):
            yield text_of(batch), batch.labelled * torch.from_numpy(shares).to(torch.float32)[:, None]


def make_direction(
    replica: Replica, model: ParallelModel, setup: Setup, batches: Iterable[tuple[Tensor, Tensor]]
) -> Direction:
    """As a leader: ``H~^-1 ∇ Σ w l``, one matrix per layer that the factors have, on the CPU; v with the batches of
    `weighted_batches`.

    Args:
        batches: text[B, T + 1] and weights[B, T].

    Raises:
        NumericsError: a gradient is not finite, or the curvature is zero.
    """
    factors = setup.factors
    replica.tell(("clear_gradients",))
    model.clear_gradients()
    for text, weights in batches:
        replica.tell(("add_gradient", text, weights))
        model.add_gradient(text, weights)
    direction: Direction = {}
    for layer in tracked_shapes(setup.architecture):
        replica.tell(("send_gradients", layer))
        direction |= precondition(_tracked(_joined(replica, model, setup, layer), setup), factors, setup.damping)
    replica.tell(("clear_gradients",))
    model.clear_gradients()
    return direction


def followers_actions(replica: Replica, model: ParallelModel) -> dict[str, Callable[..., object]]:
    """What a process that does not lead can be told."""

    def send_gradients(layer: int) -> None:
        replica.gather((replica.rank, model.gradients_of(layer)))

    return {
        "clear_gradients": model.clear_gradients,
        "add_gradient": model.add_gradient,
        "send_gradients": send_gradients,
        "load_direction": model.load_direction,
        "scores": model.scores,
    }


def _joined(replica: Replica, model: ParallelModel, setup: Setup, layer: int) -> Direction:
    """The gradient of pipeline layer ``layer``, from all who hold a part of it."""
    held = [
        (rank, part) for rank, part in replica.gather((replica.rank, model.gradients_of(layer))) if part is not None
    ]
    ranks = [part for _, part in sorted(held, key=lambda one: one[0])]
    found = matrices(layer, ranks, setup.family, setup.architecture)
    require_finite(found)
    return found


def _tracked(found: Direction, setup: Setup) -> Direction:
    """Without the layers that the factors leave out."""
    return {name: matrix for name, matrix in found.items() if name in setup.factors.layers}
