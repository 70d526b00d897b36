"""What `attribution.py` scores: a GPT-NeoX with random weights, full windows of random tokens, short queries, factors.

Nothing here decides how well anything works, only how fast: the numbers are random, the shapes are real.

Shapes: B windows, T positions, O outputs, I inputs with the bias column, Q queries.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a parent that measures the memory of children must not load torch itself
    import torch

    from ifguide.influence.batches import Batch
    from ifguide.influence.curvature.store import Factors
    from ifguide.influence.direction import Direction
    from ifguide.influence.passes.method import Pass
    from ifguide.influence.queries import Query
    from ifguide.models.tracked import ScoredModel

JVP, LOW_RANK, DIFFERENCE, ONE_SIDED, POSITION = OURS = (
    "jvp", "jvp, low rank", "difference", "difference, 4 directions one-sided", "position",
)  # fmt: skip
# |εv| / |θ| where nothing but speed or memory depends on it
STEP = 1e-3
# tokens of a query: a prompt of a few words and a completion of a few more
_PROMPT_TOKENS, _COMPLETION_TOKENS = (6, 18), (4, 14)
# logits held at a time; a plain forward that held all of them would be slower, and easier to beat


@dataclass(frozen=True)
class Shape:
    """Of a GPT-NeoX and of its windows."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    window: int

    @property
    def layer_weights(self) -> list[tuple[int, int]]:
        """(O, I) without the bias of every tracked layer."""
        h = self.hidden
        return [(3 * h, h), (h, h), (4 * h, h), (h, 4 * h)] * self.layers


SHAPES = {
    "base": Shape(6, 512, 8, 8192, 512),
    "pythia-160m": Shape(12, 768, 12, 50304, 2048),
    "pythia-410m": Shape(24, 1024, 16, 50304, 2048),
    "pythia-1b": Shape(16, 2048, 8, 50304, 2048),
    "pythia-2.8b": Shape(32, 2560, 32, 50304, 2048),
    "tiny": Shape(2, 32, 4, 512, 32),
}


def save_case_model(folder: Path, shape: Shape) -> None:
    """The model and a tokenizer that fits it, as a Hugging Face folder."""
    from generation import save_model

    # what saving loads may greet on stdout, which is kept for JSON
    with contextlib.redirect_stdout(sys.stderr):
        save_model(folder, shape.layers, shape.hidden, shape.vocabulary, shape.heads)


def open_model(folder: Path, device: str, dtype: str = "float32", attention: str = "sdpa") -> ScoredModel:
    import torch

    from ifguide.models.tracked import load_model

    return load_model(folder, getattr(torch, dtype), attention, device=device)


def random_batch(shape: Shape, windows: int, device: str) -> Batch:
    """``windows`` full windows, every position labelled."""
    import numpy as np
    import torch

    from ifguide.influence.batches import collate

    draw = np.random.default_rng(0)
    documents = draw.integers(1, shape.vocabulary, (windows, shape.window))
    # as documents are scored: after one end-of-document token
    inputs = np.concatenate([np.zeros((windows, 1), dtype=np.int64), documents[:, :-1]], axis=1)
    return collate(list(inputs), list(documents)).to(torch.device(device))


def random_queries(shape: Shape, count: int) -> list[Query]:
    import numpy as np

    from ifguide.influence.queries import make_query

    draw = np.random.default_rng(1)

    def tokens(limits: tuple[int, int]) -> list[int]:
        low, high = (min(limit, shape.window // 2 - 1) for limit in limits)
        return draw.integers(1, shape.vocabulary, draw.integers(low, high + 1)).tolist()

    return [make_query(tokens(_PROMPT_TOKENS), tokens(_COMPLETION_TOKENS), eod=0) for _ in range(count)]


def random_factors(model: ScoredModel) -> Factors:
    """EK-FAC factors with orthogonal bases and positive eigenvalues. Fitting real ones would take longer than all else
    here, and no product with them is faster or slower for it."""
    import torch

    from ifguide.influence.curvature.store import Factors

    draw = torch.Generator().manual_seed(2)
    bases: dict[int, torch.Tensor] = {}

    def basis(size: int) -> torch.Tensor:
        if size not in bases:
            bases[size] = torch.linalg.qr(torch.randn(size, size, generator=draw))[0].contiguous()
        return bases[size]

    layers = {}
    for name in model.tracked:
        outputs, inputs = model.matrix_shape(name)
        eigenvalues = torch.randn(outputs, inputs, generator=draw).exp_()
        layers[name] = {"U_A": basis(inputs), "U_G": basis(outputs), "Lambda": eigenvalues}
    return Factors("ekfac", layers, {}, "random")


def random_direction(model: ScoredModel, seed: int) -> Direction:
    """As long in every layer as a step of a thousandth of its weights."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(model.matrix_shape(name), generator=draw) * (1e-3 / math.sqrt(layer.in_features))).to(
            model.device
        )
        for name, layer in model.tracked.items()
    }


def make_scorer(way: str, model: ScoredModel, directions: Sequence[Direction], rank: int, step: float = STEP) -> Pass:
    """The pass of one of `OURS` along the first of ``directions``, or along all of them."""
    from ifguide.influence.passes.difference import DifferencePass
    from ifguide.influence.passes.forward_mode import ForwardModePass
    from ifguide.influence.passes.low_rank import truncate
    from ifguide.influence.passes.position import PositionPass

    if way == JVP:
        return ForwardModePass(model, directions[:1])
    if way == LOW_RANK:
        return ForwardModePass(model, [truncate(directions[0], rank)[0]])
    if way == POSITION:
        return PositionPass(model, directions[:1])
    if way == ONE_SIDED:
        return DifferencePass(model, directions, step, one_sided=True)
    return DifferencePass(model, directions[:1], step)


def plain_forward(model: ScoredModel, batch: Batch) -> torch.Tensor:
    """The loss of every label [N], as an evaluation would compute it: the unit that scoring is counted in."""
    import torch

    from ifguide.influence.head import rows_at_a_time
    from ifguide.models.tracked import label_losses

    with torch.no_grad(), model.attention("sdpa"):
        hidden, labels = model.hidden(batch.inputs)[batch.labelled], batch.labels[batch.labelled]
        rows = rows_at_a_time(hidden.device.type, model.vocab_size)
        pieces = zip(hidden.split(rows), labels.split(rows), strict=True)
        return torch.cat([label_losses(model.logits(h), y) for h, y in pieces])


def agreement(found: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    """Of two tensors of scores."""
    from ifguide.influence.passes.step_search import correlation, top_overlap

    a, b = (tensor.detach().cpu().double().flatten() for tensor in (found, expected))
    return {
        "largest_difference": float(f"{float((a - b).abs().max() / b.abs().max()):.3g}"),
        "correlation": round(correlation(a, b), 9),
        "top_percent_jaccard": round(top_overlap(a, b), 4),
    }
