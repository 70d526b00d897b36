"""Which loss terms a subset holds: spans of tokens or whole documents, drawn at random.

Shapes: N_docs documents, N_tokens tokens of the data, n tokens of a subset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import InputError

SPAN, DOCUMENT = UNITS = ("span", "document")


@dataclass(frozen=True)
class Draw:
    """How subsets are drawn.

    Attributes:
        unit: ``span`` (of consecutive tokens of a document) or ``document``.
        span_tokens: length of a span; the last one of a document may be shorter.
        fraction: of the training tokens that a subset holds, in (0, 1).
        seed: subset k depends on it, on k and on nothing else, so that more subsets keep those that there are.
    """

    unit: str = SPAN
    span_tokens: int = 8
    fraction: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: a value that cannot be meant.
        """
        if self.unit not in UNITS:
            raise InputError(f"--unit {self.unit}: must be one of {', '.join(UNITS)}")
        if self.span_tokens < 1:
            raise InputError(f"--span-tokens {self.span_tokens}: must be at least 1")
        if not 0 < self.fraction < 1:
            raise InputError(f"--fraction {self.fraction:g}: must lie between 0 and 1, as in 0.01")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must not be negative")

    def budget(self, num_tokens: int) -> int:
        """Tokens of a subset.

        Raises:
            InputError: less than one.
        """
        tokens = int(self.fraction * num_tokens)
        if tokens < 1:
            raise InputError(f"--fraction {self.fraction:g} of {num_tokens} tokens is less than one; raise it")
        return tokens


def subset(starts: NDArray[np.int64], documents: tuple[int, int], draw: Draw, k: int) -> NDArray[np.int64]:
    """Flat places of the tokens of subset ``k``: ascending int64[n].

    Units are drawn without putting back, each as likely. Spans fill the budget exactly, the last one drawn may be cut;
    documents are taken until the next one would not fit, at least one.

    Args:
        starts: int64[N_docs + 1], first place of each document.
        documents: half-open range of those that are drawn from.

    Raises:
        InputError: there is less than one token to draw.
    """
    first, last = documents
    begin = starts[first:last]
    lengths = starts[first + 1 : last + 1] - begin
    budget = draw.budget(int(lengths.sum()))
    random = np.random.default_rng([draw.seed, k])
    if draw.unit == DOCUMENT:
        order = random.permutation(np.flatnonzero(lengths))
        count = max(1, int(np.searchsorted(np.cumsum(lengths[order]), budget, side="right")))
        chosen, sizes = begin[order[:count]], lengths[order[:count]]
    else:
        counts = -(-lengths // draw.span_tokens)
        ends = np.cumsum(counts)
        # a span has at most span_tokens tokens, so this many are enough wherever none is shorter
        wanted = -(-budget // draw.span_tokens)
        while True:
            spans = random.choice(int(ends[-1]), min(wanted, int(ends[-1])), replace=False)
            owner = np.searchsorted(ends, spans, side="right")
            offset = (spans - (ends[owner] - counts[owner])) * draw.span_tokens
            sizes = np.minimum(draw.span_tokens, lengths[owner] - offset)
            if sizes.sum() >= budget or wanted >= ends[-1]:
                break
            random, wanted = np.random.default_rng([draw.seed, k]), 2 * wanted
        chosen = begin[owner] + offset
        kept = int(np.searchsorted(np.cumsum(sizes), budget)) + 1
        chosen, sizes = chosen[:kept], sizes[:kept]
        sizes[-1] -= max(0, int(sizes.sum()) - budget)
    places = np.repeat(chosen - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    return np.sort(places)
