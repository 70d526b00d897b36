"""The objective (M4) in place of NeoX's cross-entropy, during training steps and nowhere else; and the losses of single
tokens, while those are scored.

A penalised batch carries a SIGNED loss mask (`ifguide.penalties.coding`), which reaches the loss through the plain
and the pipeline path without another tensor.

Shapes: B micro-batch, T tokens of a sample (or of the curriculum), V the rank's part of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ifguide.penalties.coding import unsign
from ifguide.penalties.keys import push_of
from ifguide_patch.run_state import Step, TokenLosses, state

# torch comes with the first training step: the patch and its check can be looked at where there is none
if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def training_step(neox_args: Any) -> Iterator[Step]:
    """The objective acts inside this block; validation, test and generation stay outside of it."""
    from ifguide.objectives.penalised import penalty_lambda_at

    push = push_of(neox_args)
    # NeoX counts finished iterations, (M4) the current one from 1
    penalty_lambda = penalty_lambda_at(neox_args.iteration + 1, push.penalty_lambda, push.warmup_iters)
    step = Step(push.form, push.clip, penalty_lambda, bool(neox_args.penalty_log))
    state.step = step
    try:
        yield step
    finally:
        state.step = None


@contextmanager
def token_losses(weights: list[Tensor] | None = None) -> Iterator[TokenLosses]:
    """Inside this block the loss of each micro-batch is kept by token.

    Args:
        weights: one [B, T] a micro-batch: the loss that goes back is Σ w l, and not the mean.
    """
    scored = TokenLosses(weights)
    state.scored = scored
    try:
        yield scored
    finally:
        state.scored = None


def cross_entropy(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``megatron.model.gpt2_model.cross_entropy``: NeoX's own outside a penalised step, (M4) inside, and inside
    `token_losses` the losses themselves.

    Only the per-token losses of ``vocab_parallel_cross_entropy`` enter, so tensor parallelism needs no
    further communication. Every operation on clean tokens is NeoX's, in NeoX's order: without a
    selected token the loss is the same to the bit.
    """

    def penalised(output: Tensor, labels: tuple[Tensor, Tensor], _fp16: bool = False) -> Tensor:
        step = state.step
        if state.scored is not None:
            return _by_token(output, labels[0], state.scored)
        if step is None:
            return original(output, labels, _fp16=_fp16)
        import torch
        from megatron import mpu

        from ifguide.objectives.penalised import penalised_token_loss, penalty_statistics

        targets, signed = labels
        if _fp16:
            assert output.dtype == torch.half, "fp16_lm_cross_entropy needs a model in fp16"
        logits = output if _fp16 else output.float()
        losses = mpu.vocab_parallel_cross_entropy(logits.contiguous(), targets).view(-1)
        mask, strength = unsign(signed.reshape(-1), losses.dtype)
        token_loss = penalised_token_loss(
            losses, strength, form=step.form, penalty_lambda=step.penalty_lambda, clip=step.clip
        )
        if step.log:
            with torch.no_grad():
                sums = penalty_statistics(losses, strength, mask, token_loss)
                step.sums = sums if step.sums is None else step.sums + sums
        return torch.sum(token_loss * mask) / mask.sum()

    return penalised


def _by_token(output: Tensor, targets: Tensor, scored: TokenLosses) -> Tensor:
    """Keeps the losses[B, T] of a micro-batch; the same on every tensor-parallel rank."""
    from megatron import mpu

    losses = mpu.vocab_parallel_cross_entropy(output.float().contiguous(), targets)
    scored.kept.append(losses.detach())
    if scored.weights is None:
        return losses.mean()
    return (losses * scored.weights[len(scored.kept) - 1].to(losses.device)).sum()
