"""Literal, slow versions of what the package does fast: one row, one token, no cache, Python loops, float64."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection

import numpy as np
import torch


def literal_top_p(logits: list[float], uniforms: tuple[float, float], top_p: float, temperature: float = 1.0) -> int:
    """The rule of `ifguide.generation.sampling`, loop by loop."""
    peak = max(logits)  # finite; some of the others may be minus infinity
    weights = [math.exp((logit - peak) / temperature) for logit in logits]
    total = math.fsum(weights)
    p = [weight / total for weight in weights]
    token = literal_inverse_cdf(p, uniforms[0])
    nucleus = literal_nucleus(p, top_p)
    if token in nucleus:
        return token
    return literal_inverse_cdf([mass if i in nucleus else 0.0 for i, mass in enumerate(p)], uniforms[1])


def literal_nucleus(p: list[float], top_p: float) -> set[int]:
    """Tokens with less than ``top_p`` of mass strictly ahead of them."""
    inside, ahead = set(), 0.0
    for mass in sorted(set(p), reverse=True):
        if ahead >= top_p:
            break
        tied = [i for i, other in enumerate(p) if other == mass]
        inside.update(tied)
        ahead += mass * len(tied)
    return inside


def literal_inverse_cdf(weights: list[float], uniform: float) -> int:
    target, cumulated = uniform * math.fsum(weights), 0.0
    for index, weight in enumerate(weights):
        cumulated += weight
        if cumulated > target:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0)


def literal_generator(context: list[int], seed: int, earlier: int) -> np.random.Generator:
    digest = hashlib.blake2b(np.asarray(context, dtype="<i8").tobytes(), digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little"), earlier])


def literal_top_k(logits: list[float], top_k: int) -> list[float]:
    """Minus infinity outside the highest ``top_k``; 0 is no limit."""
    lowest = sorted(logits, reverse=True)[: top_k or None][-1]
    return [logit if logit >= lowest else -math.inf for logit in logits]


def literal_rad(
    logits: list[float],
    text: list[int],
    stops: Collection[int],
    top_k: int,
    weight: float,
    reward: Callable[[list[int]], float],
) -> list[float]:
    """z + weight * reward(text + token) for the ``top_k`` highest z, minus infinity else; a stop adds nothing."""
    kept = literal_top_k(logits, top_k)
    return [
        z + weight * reward(text + [token] * (token not in stops)) if z > -math.inf else z
        for token, z in enumerate(kept)
    ]


@torch.no_grad()
def literal_continuations(
    lm,
    context: list[int],
    sampling,
    earlier: int = 0,
    rad: tuple[int, float, Callable[[list[int]], float]] | None = None,
) -> list[list[int]]:
    """One sample after the other, the whole sequence through the model for every token.

    ``rad`` is its candidates, its weight, and the reward of a text's tokens (without EOD).
    """
    uniforms = literal_generator(context, sampling.seed, earlier).random((sampling.samples, sampling.max_new_tokens, 2))
    continuations = []
    for sample in range(sampling.samples):
        new: list[int] = []
        for step in range(sampling.max_new_tokens):
            logits = lm.model(torch.tensor([context + new]), use_cache=False).logits[0, -1].tolist()
            known = [token < lm.vocab_size or token in lm.stops for token in range(len(logits))]
            logits = [logit if is_token else -math.inf for logit, is_token in zip(logits, known)]
            if rad:
                text = [token for token in context + new if token != lm.eod]
                logits = literal_rad(logits, text, lm.stops, *rad)
            logits = literal_top_k(logits, sampling.top_k)
            token = literal_top_p(logits, tuple(uniforms[sample, step]), sampling.top_p, sampling.temperature)
            if token in lm.stops:
                break
            new.append(token)
        continuations.append(new)
    return continuations
