"""What a change of the residual stream is made of: attention, neurons, embeddings and biases, exactly.

What a block adds is attention and MLP, in parallel or one after the other, so for any w[d] and two models

    Δ(w·x_L) = w·Δx_0 + Σ_l w·Δattn_l + Σ_l Σ_i Δ(m_li w·v_li) + Σ_l w·Δb_l

with no remainder. The share that a set of neurons explains is their part of the third term over the whole.

Shapes: P texts, L blocks, N neurons of a block, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ifguide.analysis.findings import Floats, Interval, Sampled, is_sure
from ifguide.analysis.hooks import passages
from ifguide.analysis.inputs import Subject, Text
from ifguide.errors import InputError

# what rounding leaves of the sum of all parts, of the largest part
_REMAINDER = {torch.float64: 1e-9, torch.float32: 1e-3}
_REMAINDER_ELSEWHERE = 5e-2


@dataclass(frozen=True, eq=False)
class Parts:
    """Of one model, the means over the completion's tokens of each text's parts.

    Attributes:
        total: w·x_L, ``[P]``.
        embedding: w·x_0, ``[P]``.
        attention: w·attn_l, ``[P, L]``.
        mlp: Σ_i m_li w·v_li, ``[P, L]``.
        chosen: Σ m_li w·v_li of the chosen neurons, ``[P]``.
        bias: Σ_l w·b_l.
        neurons: mean over the texts of m_li w·v_li, of each block ``[N]``.
        activations: mean over the texts of m_li of the chosen neurons, ``[C]``.
    """

    total: Floats
    embedding: Floats
    attention: Floats
    mlp: Floats
    chosen: Floats
    bias: float
    neurons: list[Floats]
    activations: Floats

    @property
    def remainder(self) -> float:
        """Largest difference of the whole and the sum of its parts, over the largest part: rounding, or a part that
        is not known."""
        parts = self.embedding + self.attention.sum(axis=1) + self.mlp.sum(axis=1) + self.bias
        largest = max(np.abs(part).max() for part in (self.total, self.embedding, self.attention, self.mlp))
        return float(np.abs(self.total - parts).max() / max(largest, 1e-300))


def parts_of(model: Subject, texts: Sequence[Text], w: Floats, chosen: Sequence[tuple[int, int]]) -> Parts:
    """The parts of w·x_L while ``model`` reads ``texts``.

    Args:
        chosen: neurons (block, number).

    Raises:
        InputError: the parts do not give the whole: its blocks add something else as well.
    """
    anatomy = model.anatomy
    anatomy.require_neurons(model.label)
    device, count = model.lm.device, len(anatomy.blocks)
    along = torch.from_numpy(w).to(device)
    written = [block.values.double() @ along for block in anatomy.blocks]  # w·v_li, [N]
    picked = [torch.tensor([n for at, n in chosen if at == block], dtype=torch.int64) for block in range(count)]
    place = [torch.tensor([c for c, (at, _) in enumerate(chosen) if at == block], dtype=torch.int64)
             for block in range(count)]  # fmt: skip
    total, embedding, chosen_sum = (np.zeros(len(texts)) for _ in range(3))
    attention, mlp = (np.zeros((len(texts), count)) for _ in range(2))
    neurons = [torch.zeros_like(one) for one in written]
    activations = torch.zeros(len(chosen), dtype=torch.float64)
    for index, passage in passages(model.lm, anatomy, [text.tokens for text in texts], neurons=True):
        at = texts[index].targets
        total[index] = float((passage.residuals[-1, at].double() @ along).mean())
        embedding[index] = float((passage.residuals[0, at].double() @ along).mean())
        attention[index] = (passage.attention[:, at].double() @ along).mean(dim=1).cpu().numpy()
        for block, m in enumerate(passage.activations):
            mean = m[at].double().mean(dim=0)
            contributed = mean * written[block]
            mlp[index, block] = float(contributed.sum())
            chosen_sum[index] += float(contributed[picked[block]].sum())
            neurons[block] += contributed / len(texts)
            activations[place[block]] += mean[picked[block]].cpu() / len(texts)
    bias = sum(float(block.bias.double() @ along) for block in anatomy.blocks if block.bias is not None)
    found = Parts(total, embedding, attention, mlp, chosen_sum, bias,
                  [one.cpu().numpy() for one in neurons], activations.numpy())  # fmt: skip
    if found.remainder > _REMAINDER.get(model.lm.model.dtype, _REMAINDER_ELSEWHERE):
        raise InputError(
            f"model {model.label}: attention, neurons, embedding and biases do not add up to what its last block gives "
            f"({found.remainder:.2g} of the largest part is missing); its blocks norm or add something else as well, "
            "so its neurons cannot be held against each other"
        )
    return found


def change(base: Parts, model: Parts, resamples: int, seed: int) -> dict[str, Any]:
    """Where Δ(w·x_L) comes from, model - base, with intervals over texts; ``share`` of the chosen neurons.

    The share of one part can be above 1 or below 0, because others may work against it.
    """
    named = {
        "total": model.total - base.total,
        "embedding": model.embedding - base.embedding,
        "attention": (model.attention - base.attention).sum(axis=1),
        "neurons": (model.mlp - base.mlp).sum(axis=1),
        "toxic neurons": model.chosen - base.chosen,
    }
    total = named["total"]
    ones = np.ones_like(total)
    means = Sampled(np.stack([np.stack([part, ones], 1) for part in named.values()], 1), resamples, seed)
    found: dict[str, Any] = {
        name: {"value": float(means.values[column]), "interval": list(means.interval(column))}
        for column, name in enumerate(named)
    }
    found["bias"] = {"value": model.bias - base.bias, "interval": None}
    bounds: Interval = means.interval(0)
    found["is_sure"] = is_sure(bounds)
    # a ratio of means, whose divisor's interval has to exclude 0
    found["share"] = None
    if found["is_sure"]:
        ratio = Sampled(np.stack([named["toxic neurons"], total], 1)[:, None], resamples, seed)
        found["share"] = {"value": float(ratio.values[0]), "interval": list(ratio.interval(0))}
    found["remainder"] = max(base.remainder, model.remainder)
    found["blocks"] = {
        "attention": (model.attention - base.attention).mean(axis=0).tolist(),
        "neurons": (model.mlp - base.mlp).mean(axis=0).tolist(),
    }
    return found
