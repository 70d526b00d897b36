"""The training objective (M4): cross-entropy on clean tokens, a penalty on selected ones.

    L = Σ_j m_j [ (1 - s_j) CE_j + s_j λ f(CE_j) ] / Σ_j m_j

Every form f is a function of the token's own cross-entropy, so whatever computes CE (vocabulary-
parallel, fused, chunked) stays as it is and no form needs communication. λ lives here and nowhere
else: a mask says which tokens, never how hard. Pure torch; the runtime patch imports this file.

Shapes: any shape ``[...]`` as long as ``ce``, ``strength`` and ``mask`` share it (usually [B, T]).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ifguide.objectives.base import Batch, Objective, TokenBatch
from ifguide.objectives.cross_entropy import token_losses
from ifguide.penalties.coding import strength as strength_of
from ifguide.penalties.keys import PenaltyKeys, push_of

FORMS = ("ascent", "clipped", "unlikelihood")
NUM_SUMS = 5
_UNLIKELIHOOD_MIN_CE = 1e-6  # nats: f(1e-6) = 13.8; p = 1 exactly would make f infinite


def penalty(ce: Tensor, form: str, clip: float | None = None) -> Tensor:
    """f(CE) of (M4), element by element; minimising it makes the token less likely.

    - ``ascent``: -CE (IF-Guide, arXiv 2506.01790). Unbounded below.
    - ``clipped``: -min(CE, clip): the push ends once the token costs ``clip`` nats.
    - ``unlikelihood``: -log(1 - exp(-CE)) (arXiv 1908.04319): bounded gradient, fades as p -> 0.

    Raises:
        ValueError: unknown form, or ``clipped`` without a positive ``clip``.
    """
    if form == "ascent":
        return -ce
    if form == "clipped":
        if clip is None or clip <= 0:
            raise ValueError("penalty form 'clipped' needs clip > 0 (nats)")
        return -ce.clamp(max=clip)
    if form == "unlikelihood":
        return -_log1mexp(ce.clamp(min=_UNLIKELIHOOD_MIN_CE))
    raise ValueError(f"unknown penalty form {form!r}; one of {', '.join(FORMS)}")


def penalised_token_loss(
    ce: Tensor,
    strength: Tensor,
    *,
    form: str = "ascent",
    penalty_lambda: float = 1.0,
    clip: float | None = None,
) -> Tensor:
    """(1 - s) CE + s λ f(CE) per token, the bracket of (M4).

    Args:
        ce: cross-entropy per token, nats, ``[...]``.
        strength: s in [0, 1], ``[...]``: 0 for a clean token, 1 for a selected one of a binary mask.
        penalty_lambda: λ.

    Where s = 0 the result is ``ce`` bit for bit, and so is its gradient: a step without selected
    tokens is the stock step.
    """
    penalised = (1 - strength) * ce + strength * (penalty_lambda * penalty(ce, form, clip))
    return torch.where(strength > 0, penalised, ce)


def penalised_loss(
    ce: Tensor,
    strength: Tensor,
    mask: Tensor,
    *,
    form: str = "ascent",
    penalty_lambda: float = 1.0,
    clip: float | None = None,
) -> Tensor:
    """(M4), a scalar. ``mask`` is the ordinary loss mask m; the denominator counts every unmasked
    token, selected ones too, so a clean token weighs the same with and without a penalty."""
    token_loss = penalised_token_loss(ce, strength, form=form, penalty_lambda=penalty_lambda, clip=clip)
    return (token_loss * mask).sum() / mask.sum()


def penalty_lambda_at(step: int, penalty_lambda: float, warmup_iters: int = 0) -> float:
    """λ of training step ``step`` (from 1): rises linearly to ``penalty_lambda`` over ``warmup_iters``."""
    if warmup_iters <= 0:
        return penalty_lambda
    return penalty_lambda * min(1.0, step / warmup_iters)


def penalty_statistics(ce: Tensor, strength: Tensor, mask: Tensor, token_loss: Tensor) -> Tensor:
    """Sums to add up over micro-batches and ranks before any division, float64 ``[5]``:

    CE of clean tokens, number of clean tokens, CE of selected tokens, number of selected tokens,
    objective. A batch without selected tokens adds zeros and can cause no NaN.
    """
    keep = mask > 0
    selected = keep & (strength > 0)
    clean = keep & (strength == 0)
    ce = ce.detach().double()
    return torch.stack(
        [
            (ce * clean).sum(),
            clean.sum().double(),
            (ce * selected).sum(),
            selected.sum().double(),
            (token_loss.detach().double() * mask).sum(),
        ]
    )


def reported(sums: Tensor) -> dict[str, float]:
    """Summed `penalty_statistics` -> the numbers that training logs.

    ``lm_loss`` (mean CE of clean tokens), ``objective`` and ``penalty_fraction`` (selected share of
    unmasked tokens); ``penalty_ce`` (mean CE of selected tokens) only where there were any: to be compared
    with a run of the same mask without a push.
    """
    clean_ce, clean, selected_ce, selected, objective = sums.tolist()
    total = clean + selected
    report = {
        "lm_loss": clean_ce / max(clean, 1.0),
        "objective": objective / max(total, 1.0),
        "penalty_fraction": selected / max(total, 1.0),
    }
    if selected:
        report["penalty_ce"] = selected_ce / selected
    return report


class Penalised(Objective):
    """(M4) as the YAML keys of IF-Guide describe it. Logs what `reported` gives, or ``objective`` alone."""

    name = "lm"
    num_sums = NUM_SUMS

    def __init__(self, keys: PenaltyKeys):
        self._keys, self._push = keys, push_of(keys)

    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        return self.text_loss(token_losses(model, batch.text), batch.text, iteration)

    def text_loss(self, ce: Tensor, batch: TokenBatch, iteration: int) -> tuple[Tensor, Tensor]:
        """`loss` from the cross-entropy[B, T] of every label."""
        push = self._push
        strength = strength_of(batch.codes)
        weight = penalty_lambda_at(iteration, push.penalty_lambda, push.warmup_iters)
        token_loss = penalised_token_loss(ce, strength, form=push.form, penalty_lambda=weight, clip=push.clip)
        loss = (token_loss * batch.loss_mask).sum() / batch.loss_mask.sum()
        return loss, penalty_statistics(ce, strength, batch.loss_mask, token_loss)

    def report(self, sums: Tensor) -> dict[str, float]:
        return reported(sums)

    def logged(self, values: dict[str, float]) -> dict[str, float]:
        return values if self._keys.penalty_log else {"objective": values["objective"]}


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0 without cancellation (Mächler 2012: switch at log 2)."""
    small = x < 0.6931471805599453
    # the branch not taken is fed a harmless value: its gradient would otherwise be 0 * inf = NaN
    near = torch.log(-torch.expm1(-torch.where(small, x, torch.ones_like(x))))
    far = torch.log1p(-torch.exp(-torch.where(small, torch.ones_like(x), x)))
    return torch.where(small, near, far)
