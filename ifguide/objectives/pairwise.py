"""What the objectives on pairs share: log-probabilities of continuations, and terms on the tokens that count.

Shapes: R rows of a batch (2B: chosen, then rejected), P tokens of a row, V padded vocabulary, n tokens that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from ifguide.models.blocks import captured
from ifguide.objectives.base import Batch, Outputs, PairBatch


def pairs_of(batch: Batch) -> PairBatch:
    """The pairs of a batch whose objective reads pairs."""
    assert batch.pairs is not None
    return batch.pairs


def outputs_of(model: Any, tokens: Tensor, layer: int | None = None) -> Outputs:
    """Logits of tokens[R, P], and the raw output of block ``layer`` (from 1) if one is named."""
    with captured(model, layer) as found:
        logits = model(input_ids=tokens, use_cache=False).logits
    return Outputs(logits, found.hidden)


def losses_at(logits: Tensor, labels: Tensor, where: Tensor) -> Tensor:
    """``-log p(label)``, nats, at the n predictions that count: [n].

    Args:
        logits: [R, P, V].
        labels: int64[R, P].
        where: bool[R, P].
    """
    return F.cross_entropy(_at_least_fp32(logits[where]), labels[where], reduction="none")


def kl_at(logits: Tensor, reference: Tensor, where: Tensor) -> Tensor:
    """KL(reference || model), nats, at the n predictions that count: [n]. Arguments as `losses_at`."""
    return ForwardKL.apply(_at_least_fp32(logits[where]), _at_least_fp32(reference[where]))


def counted_losses(logits: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
    """``-log p`` of every token that counts, in the order of the rows: [n].

    Args:
        logits: [R, P, V] of ``tokens``; position t predicts token t + 1.
        tokens: int64[R, P].
        counts: bool[R, P]; the first token of a row has no prediction and must not count.
    """
    return losses_at(logits[:, :-1], tokens[:, 1:], counts[:, 1:])


def sequence_log_probs(logits: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
    """Summed log-probability of the tokens that count in each row, [R], float64. Arguments as `counted_losses`."""
    losses = counted_losses(logits, tokens, counts).double()
    rows = counts[:, 1:].nonzero()[:, 0]
    return torch.zeros(len(tokens), dtype=losses.dtype, device=losses.device).index_add(0, rows, -losses)


class ForwardKL(torch.autograd.Function):
    """``Σ_v p_r(v) (log p_r(v) - log p(v))`` of each of n predictions: [n].

    Its gradient is written out, ``p - p_r``: where the model is the reference it is 0 to the bit, which the gradient
    of a sum of rounded probabilities is not.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, reference: Tensor) -> Tensor:
        """
        Args:
            logits, reference: [n, V], of the model and of the frozen reference.
        """
        log_p, log_r = logits.log_softmax(-1), reference.log_softmax(-1)
        ctx.save_for_backward(log_p, log_r)
        return (log_r.exp() * (log_r - log_p)).sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        log_p, log_r = ctx.saved_tensors
        return (log_p.exp() - log_r.exp()) * gradients[0][:, None], None


def whole_counts(counts: Sequence[Tensor], device: Any) -> list[float]:
    """Numbers of this process, each added up over all processes. Every process must call this."""
    total = torch.stack([count.double().to(device) for count in counts])
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total.tolist()


def _at_least_fp32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
