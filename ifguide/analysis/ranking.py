"""The neurons that write along the toxic direction of a probe.

    w: the base's probe of x_L             cos(v_i, w) over all neurons of all blocks; the best are the toxic set
    what a neuron says: the tokens of the largest U v_i

Shapes: N neurons of a block, C chosen ones, d width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifguide.analysis.findings import Floats
from ifguide.analysis.hooks import Anatomy
from ifguide.analysis.inputs import Bench, Subject, Text
from ifguide.analysis.probes import Probe, features, fit
from ifguide.models.language_model import LanguageModel

Neuron = tuple[int, int]


class Ranked(NamedTuple):
    """The toxic set.

    Attributes:
        neurons: (block from 0, number), the best first, ``[C]``.
        cosines: with w, ``[C]``.
    """

    neurons: list[Neuron]
    cosines: list[float]


def probe_of_last_layer(bench: Bench, model: Subject, toxic: Sequence[Text], safe: Sequence[Text]) -> Probe:
    """The logistic probe of x_L, on all texts."""
    x = features(model, [*toxic, *safe], bench.asked.probe.at)[:, -1]
    return fit(x, np.array([1] * len(toxic) + [0] * len(safe)), bench.asked.probe.strength)


def rank(anatomy: Anatomy, w: Floats, count: int) -> Ranked:
    """The ``count`` neurons whose values point most along ``w[d]``."""
    cosines = [_cosines(block.values, w) for block in anatomy.blocks]
    every = torch.cat(cosines)
    block_of = torch.cat([torch.full((len(one),), block) for block, one in enumerate(cosines)])
    number = torch.cat([torch.arange(len(one)) for one in cosines])
    best = every.argsort(descending=True, stable=True)[:count]
    return Ranked(list(zip(block_of[best].tolist(), number[best].tolist())), every[best].tolist())


def values_of(anatomy: Anatomy, neurons: Sequence[Neuron]) -> Tensor:
    """``[C, d]``, float64, on the processor."""
    return torch.stack([anatomy.blocks[block].values[number].detach().double().cpu() for block, number in neurons])


def tokens_said(lm: LanguageModel, anatomy: Anatomy, vectors: Tensor, most: int) -> list[list[str]]:
    """The tokens of the ``most`` largest ``U v`` of each of ``vectors[C, d]``."""
    weight = anatomy.head.weight
    assert isinstance(weight, Tensor)
    likeliest = (vectors.to(weight) @ weight[: lm.vocab_size].T).topk(min(most, lm.vocab_size)).indices
    return [[lm.reader.token_bytes(token).decode("utf-8", "replace") for token in row] for row in likeliest.tolist()]


def singular(values: Tensor) -> tuple[list[float], Tensor]:
    """Singular values and right singular vectors ``[C, d]`` of unit vectors ``[C, d]``, each turned so that it points
    along their mean."""
    unit = values / values.norm(dim=1, keepdim=True).clamp_min(1e-300)
    _, found, right = torch.linalg.svd(unit, full_matrices=False)
    sign = torch.sign(right @ unit.mean(dim=0))
    return found.tolist(), right * torch.where(sign == 0, 1.0, sign)[:, None]


def matched_random(anatomy: Anatomy, neurons: Sequence[Neuron], random: np.random.Generator) -> list[Neuron]:
    """As many other neurons of each block as ``neurons`` has, drawn at random."""
    found: list[Neuron] = []
    for block, module in enumerate(anatomy.blocks):
        taken = [number for at, number in neurons if at == block]
        if taken:
            left = np.setdiff1d(np.arange(module.values.shape[0]), taken)
            drawn = random.choice(left, min(len(taken), len(left)), replace=False)
            found += [(block, number) for number in drawn.tolist()]
    return found


def as_rows(ranked: Ranked, said: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """For results: blocks counted from 1, as layers are."""
    return [
        {"layer": block + 1, "neuron": number, "cosine": cosine, "says": list(tokens)}
        for (block, number), cosine, tokens in zip(ranked.neurons, ranked.cosines, said)
    ]


def _cosines(values: Tensor, w: Floats) -> Tensor:
    """``[N]``, 0 for a neuron that writes nothing."""
    values = values.detach().double().cpu()
    along = torch.from_numpy(w)
    length = values.norm(dim=1) * along.norm()
    return torch.where(length > 0, (values @ along) / length.clamp_min(1e-300), 0.0)
