"""Top-p sampling, one token for every row, driven by given uniform numbers.

Shapes: B rows, V vocabulary.  p[B, V] = softmax(logits / temperature).

The nucleus of a row is { i : sum of p_j over p_j > p_i  <  top_p }: the most probable tokens whose mass reaches
top_p, tokens tied with the last one included, so that the numbering of the vocabulary does not matter.

Sorting V probabilities for every token costs more than the model here, so a row is sorted only when it has to be:
  1. draw a token from the whole of p;
  2. it is inside the nucleus if the mass ahead of it is below top_p (no sort: one masked sum): keep it;
  3. otherwise (at most 1 - top_p of the rows) sort the row, and draw again from the nucleus alone.
With M = mass of the nucleus, P(token) = p + (1 - M) p / M = p / M: exactly top-p sampling, with two uniforms.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# rows are worked on in pieces that stay in a core's cache
_PIECE_ELEMENTS = 1 << 18


def sample_top_p(logits: Tensor, uniforms: Tensor, top_p: float, temperature: float = 1.0) -> Tensor:
    """Draw one token a row by the rule above.

    Args:
        logits: ``[B, V]``; minus infinity is never drawn.
        uniforms: ``[B, 2]`` in [0, 1): the first drives step 1, the second step 3.
        top_p: mass of the nucleus, in (0, 1]; 1 samples from everything.
        temperature: divides the logits, > 0.

    Returns:
        tokens ``[B]``, int64.
    """
    rows = max(1, _PIECE_ELEMENTS // logits.shape[1])
    if logits.device.type != "cpu":
        rows = logits.shape[0]
    pieces = zip(logits.split(rows), uniforms.split(rows))
    return torch.cat([_sample(piece, drawn, top_p, temperature) for piece, drawn in pieces])


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """``logits[B, V]`` with minus infinity outside the ``top_k`` highest of each row, ties with the last one kept; 0 is
    no limit."""
    if top_k == 0 or top_k >= logits.shape[1]:
        return logits
    return logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """``logits[B, V]`` with minus infinity outside the nucleus of each row."""
    if top_p >= 1.0:
        return logits
    p = torch.softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
    return logits.masked_fill(_nucleus(p, top_p) == 0, -torch.inf)


def _sample(logits: Tensor, uniforms: Tensor, top_p: float, temperature: float) -> Tensor:
    # sums over a vocabulary need more digits than half precision has
    logits = logits if logits.dtype == torch.float64 else logits.float()
    p = torch.softmax(logits / temperature if temperature != 1.0 else logits, dim=-1)
    uniforms = uniforms.to(p.dtype)
    token = _inverse_cdf(p, uniforms[:, :1])
    if top_p < 1.0:
        outside = (_mass_ahead(p, token) >= top_p).nonzero()[:, 0]
        if outside.numel():
            token[outside] = _inverse_cdf(_nucleus(p[outside], top_p), uniforms[outside, 1:])
    return token[:, 0]


def _inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """First index whose cumulated weight exceeds ``uniform[B, 1]`` times the total: never one of weight 0."""
    cumulated = weights.cumsum(-1)
    total = cumulated[:, -1:]
    # u * total can round up to the total, which no cumulated weight exceeds
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, target, right=True)


def _mass_ahead(p: Tensor, token: Tensor) -> Tensor:
    """``[B]``: mass of the tokens more probable than ``token[B, 1]``."""
    own = p.gather(1, token)
    # p_j > own as p_j / own > 1: `threshold` is one vectorised pass, a comparison and a product are not
    return torch.nn.functional.threshold(p / own, 1.0, 0.0, inplace=True).sum(-1) * own[:, 0]


def _nucleus(p: Tensor, top_p: float) -> Tensor:
    """``p[B, V]`` with 0 outside the nucleus."""
    descending = _sorted(p).flip(-1)
    ahead = descending.cumsum(-1) - descending
    last = (ahead < top_p).sum(-1, keepdim=True) - 1
    return p * (p >= descending.gather(1, last))


def _sorted(p: Tensor) -> Tensor:
    """Ascending values of each row."""
    # torch sorts indices along and takes 20 times as long on a CPU
    return torch.from_numpy(np.sort(p.numpy(), axis=-1)) if p.device.type == "cpu" else p.sort(dim=-1).values
