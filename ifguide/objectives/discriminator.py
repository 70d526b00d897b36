"""REPO's discriminator: a small classifier of token representations, and the reversal of its gradient.

    z = w · LN(h) + b            linear; LN without a gain or a bias of its own, so that no representation can run away
    z = w · GELU(W LN(h) + a) + b    mlp
    L_adv = -1/2 { mean over toxic tokens of log σ(z) + mean over benign tokens of log(1 - σ(z)) }

Everything is fp32, whatever the model computes in (fp64 stays fp64).

Shapes: n tokens, H width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

LINEAR, MLP = "linear", "mlp"
_EPS = 1e-5


class GradientReversal(torch.autograd.Function):
    """Forward the identity, bit for bit; backward ``g -> -λ g``."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


class Discriminator(torch.nn.Module):
    """Logit of being toxic of each token. It starts at z = 0: L_adv = log 2, and no gradient reaches the model."""

    def __init__(self, width: int, kind: str, seed: int):
        """
        Args:
            width: H.
            kind: ``linear`` or ``mlp``.
        """
        super().__init__()
        self.inner = torch.nn.Linear(width, width) if kind == MLP else None
        self.outer = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.outer.weight)
        torch.nn.init.zeros_(self.outer.bias)
        if self.inner is not None:
            draw = torch.Generator().manual_seed(seed)
            torch.nn.init.normal_(self.inner.weight, std=1 / math.sqrt(width), generator=draw)
            torch.nn.init.zeros_(self.inner.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """z[n] of hidden[n, H]."""
        values = F.layer_norm(hidden.to(self.outer.weight.dtype), hidden.shape[-1:])
        if self.inner is not None:
            values = F.gelu(self.inner(values))
        return self.outer(values)[:, 0]


def adversarial_loss(z: Tensor, toxic: Tensor, counts: tuple[float, float]) -> Tensor:
    """What the tokens of a micro-batch add to L_adv.

    Args:
        z: [n].
        toxic: bool[n]; the others are benign.
        counts: toxic and benign tokens of the whole step: the sum over its micro-batches is then L_adv.
    """
    return -0.5 * _weighted(F.logsigmoid(z), F.logsigmoid(-z), toxic, counts)


def confusion_loss(z: Tensor, toxic: Tensor, counts: tuple[float, float]) -> Tensor:
    """The same for the binary cross-entropy with target 1/2, the mean of both classes' means."""
    bce = -0.5 * (F.logsigmoid(z) + F.logsigmoid(-z))
    return 0.5 * _weighted(bce, bce, toxic, counts)


def dann_weight(progress: float) -> float:
    """``2 / (1 + exp(-10 q)) - 1`` for q in [0, 1] (DANN, arXiv 1505.07818)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class DiscriminatorTraining:
    """The discriminator with an optimizer of its own: its gradient is clipped apart from the model's.

    Attributes:
        module: the discriminator.
    """

    def __init__(self, module: Discriminator, lr: float, clip: float):
        """
        Args:
            clip: largest norm of the gradient; 0 is no limit.
        """
        self.module, self._clip = module, clip
        # the bias of a new discriminator has a gradient of 0 in exact arithmetic: with Adam's usual eps of 1e-8 its
        # rounding, which differs with the number of processes, would move it by a whole step
        self._optimizer = torch.optim.Adam(module.parameters(), lr=lr, eps=_EPS)

    def add(self, loss: Tensor) -> None:
        """Add a micro-batch's gradient; its representations carry no graph of the model."""
        loss.backward()

    def step(self) -> None:
        """One step on the gradient summed over micro-batches and processes. Every process must call this."""
        parameters = list(self.module.parameters())
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(whole)
        for parameter, gradient in zip(parameters, whole.split([one.numel() for one in parameters])):
            parameter.grad = gradient.view_as(parameter).clone()
        torch.nn.utils.clip_grad_norm_(parameters, self._clip or math.inf)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Parameters and moments."""
        return {"parameters": self.module.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """The opposite of `state`."""
        self.module.load_state_dict(state["parameters"])
        self._optimizer.load_state_dict(state["optimizer"])


def _weighted(toxic_values: Tensor, benign_values: Tensor, toxic: Tensor, counts: tuple[float, float]) -> Tensor:
    """Sum of the toxic ones over their number, plus the same of the benign ones; a class without tokens adds 0."""
    first = (toxic_values * toxic).sum() / max(counts[0], 1.0)
    return first + (benign_values * ~toxic).sum() / max(counts[1], 1.0)
