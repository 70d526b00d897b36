"""Search of a prefix by a mixture of moves: swaps by the gradient, and tokens put in, taken out and exchanged.

Every iteration goes on from the best prefix of the buffer, tries one kind of move with several children, and puts the
best child into the buffer. The least length rises from ``least`` to ``most`` over the ramp; what is shorter is made
longer first. An iteration's random numbers follow from the seed and its number, so that a search that was killed goes
on as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ifguide.attacks.gcg.candidates import Survives, lowest
from ifguide.attacks.gcg.prefix_loss import PrefixLoss
from ifguide.attacks.options import Enhanced

MOVES = {"swap": 0.7, "insert": 0.1, "delete": 0.1, "exchange": 0.1}
# how many more children are drawn than are tried, since not all survive
_SPARE = 4

Buffer = list[tuple[float, list[int]]]


def least_length(iteration: int, options: Enhanced) -> int:
    """Of iteration ``iteration``, from 1."""
    share = min(1.0, iteration / options.ramp) if options.ramp else 1.0
    return round(options.least + (options.most - options.least) * share)


def search(
    loss: PrefixLoss, buffer: Buffer, begun: int, allowed: Tensor, survives: Survives, options: Enhanced, seed: int
) -> Iterator[tuple[int, Buffer]]:
    """(iteration, the buffer after it, best first) of each iteration after the ``begun`` ones.

    Args:
        buffer: not empty.

    Raises:
        NumericsError: as `PrefixLoss`.
    """
    for iteration in range(begun + 1, options.iterations + 1):
        random = np.random.default_rng([seed, 1, iteration])
        least = least_length(iteration, options)
        long = [entry for entry in buffer if len(entry[1]) >= least]
        is_short = not long
        buffer = long or buffer[:1]
        parent = buffer[0][1]
        move = "insert" if is_short else _drawn(parent, least, options.most, random)
        children = [one for one in _children(move, loss, parent, allowed, options, random) if one != parent]
        distinct = [list(one) for one in dict.fromkeys(map(tuple, children))]
        kept = [one for one, fits in zip(distinct, survives(distinct)) if fits][: options.children] if distinct else []
        if kept:
            values = loss.losses(torch.tensor(kept)).tolist()
            best = min(range(len(kept)), key=values.__getitem__)
            entry = (values[best], kept[best])
            buffer = [entry] if is_short else sorted([*buffer, entry])[: options.buffer]
        yield iteration, buffer


def _drawn(parent: Sequence[int], least: int, most: int, random: np.random.Generator) -> str:
    move = str(random.choice([*MOVES], p=[*MOVES.values()]))
    if (move == "delete" and len(parent) <= least) or (move == "insert" and len(parent) >= most):
        return "swap"
    return move if len(parent) > 1 or move == "insert" else "swap"


def _children(
    move: str, loss: PrefixLoss, parent: list[int], allowed: Tensor, options: Enhanced, random: np.random.Generator
) -> list[list[int]]:
    count = _SPARE * options.children
    moves: dict[str, Callable[[], list[list[int]]]] = {
        "swap": lambda: _swapped(lowest(loss.gradient(parent), allowed, options.tokens), parent, count, random),
        "insert": lambda: _inserted(lowest(-loss.next_tokens(parent), allowed, options.tokens), parent, count, random),
        "delete": lambda: [_without(parent, place) for place in random.permutation(len(parent)).tolist()],
        "exchange": lambda: [_exchanged(parent, random) for _ in range(count)],
    }
    return moves[move]()


def _swapped(top: Tensor, parent: list[int], count: int, random: np.random.Generator) -> list[list[int]]:
    """``top[S, k]``."""
    children = []
    for place, rank in zip(random.integers(len(parent), size=count), random.integers(top.shape[1], size=count)):
        child = list(parent)
        child[place] = int(top[place, rank])
        children.append(child)
    return children


def _inserted(top: Tensor, parent: list[int], count: int, random: np.random.Generator) -> list[list[int]]:
    """``top[S + 1, k]``: the most probable tokens of each place."""
    places = random.integers(len(parent) + 1, size=count).tolist()
    ranks = random.integers(top.shape[1], size=count).tolist()
    return [[*parent[:place], int(top[place, rank]), *parent[place:]] for place, rank in zip(places, ranks)]


def _without(parent: list[int], place: int) -> list[int]:
    return [*parent[:place], *parent[place + 1 :]]


def _exchanged(parent: list[int], random: np.random.Generator) -> list[int]:
    one, other = random.choice(len(parent), 2, replace=False).tolist()
    child = list(parent)
    child[one], child[other] = child[other], child[one]
    return child
