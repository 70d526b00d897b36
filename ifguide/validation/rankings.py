"""What is validated: the scores, those that they are compared with, and controls, all on the same tokens.

A score set gives every token a number; large ones are said to raise the margin when they are learned.

Shapes: N tokens that training reads, n places, K subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.data.aligned import Aligned, load_aligned, require_finite, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES, SCORES
from ifguide.errors import InputError
from ifguide.selection.by_passages import random_keys
from ifguide.validation.run import FinishedRun

OWN, RANDOM, LOSS = "scores", "random", "loss"
_RESERVED = (OWN, RANDOM, LOSS)
_BATCH_TOKENS = 4096

At = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Ranking:
    """One score set.

    Attributes:
        name: unlike those of the others.
        at: flat places -> their scores.
        path: prefix of its files; None for what is computed.
        control: whether it is there for comparison alone and nobody gave it.
    """

    name: str
    at: At
    path: str | None = None
    control: bool = False

    def sums(self, subsets: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Σ s over each subset: float64[K]."""
        return np.array([self.at(places).sum() for places in subsets])


def open_scores(name: str, prefix: str | Path, tokens: TokenDataset) -> Ranking:
    """A score set of ``tokens``.

    Raises:
        InputError: files are missing or damaged.
        MismatchError: scores of other tokens.
        NumericsError: one is not finite.
    """
    scores = load_aligned(prefix, tokens, SCORES)
    require_finite(scores)
    return Ranking(name, lambda places: scores.values[places].astype(np.float64), str(prefix))


def open_named(flag: str, given: Sequence[str], taken: Sequence[str] = _RESERVED) -> list[tuple[str, str]]:
    """(name, prefix) of every ``NAME=PREFIX``.

    Raises:
        InputError: no name or no prefix, or a name that there is already.
    """
    found: list[tuple[str, str]] = []
    for text in given:
        name, equals, prefix = text.partition("=")
        if not (equals and name and prefix) or Path(name).name != name or name.startswith("."):
            raise InputError(f"{flag} {text}: expected NAME=PREFIX, as in words=data/word_hits")
        if name in taken or name in [one for one, _ in found]:
            raise InputError(f"{flag} {text}: there is a ranking named '{name}' already; choose another name")
        found.append((name, prefix))
    return found


def open_mask(prefix: str | Path, run: FinishedRun) -> NDArray[np.int64]:
    """Flat places of the tokens that a mask selects and that training reads.

    Raises:
        InputError: files are missing or damaged, or it selects nothing there.
        MismatchError: a mask of other tokens.
    """
    mask: Aligned = load_aligned(prefix, run.tokens, PENALTIES)
    begin, end = run.places
    places = begin + np.flatnonzero(mask.values[begin:end])
    if not len(places):
        raise InputError(f"mask {prefix} selects none of the tokens that training reads")
    return places


def random_ranking(seed: int) -> Ranking:
    """Uniform scores, by the place alone."""
    return Ranking(RANDOM, lambda places: random_keys(places, seed) - 0.5, control=True)


def loss_ranking(run: FinishedRun, prefix: Path, device: str, quiet: bool) -> Ranking:
    """The loss of every token under the run's model, scored as (M2) scores it: each document alone, after one EOD.

    Computed once and kept as a score set at ``prefix``.

    Raises:
        InputError: the model cannot be loaded.
        NumericsError: a loss is not finite.
    """
    from ifguide.models.folder import weights_fingerprint

    about = {"method": LOSS, "model": weights_fingerprint(run.model)}
    try:
        kept = load_aligned(prefix, run.tokens, SCORES)
    except InputError:
        kept = None
    if kept is None or kept.sidecar.get("parameters") != about:
        values = _losses(run, device, quiet)
        write_aligned(prefix, run.tokens, values, np.float32, {"parameters": about})
    found = open_scores(LOSS, prefix, run.tokens)
    return Ranking(LOSS, found.at, None, control=True)


def best(ranking: Ranking, places: tuple[int, int], count: int, seed: int) -> NDArray[np.int64]:
    """The ``count`` places with the highest scores, best first; of equal scores those that chance picks.

    Args:
        places: half-open range.

    Holds all scores of the range at once: 20 bytes a token.
    """
    everything = np.arange(*places)
    values = ranking.at(everything)
    limit = np.partition(values, len(values) - count)[len(values) - count]
    candidates = np.flatnonzero(values >= limit)
    # the last key decides first
    order = np.lexsort((random_keys(everything[candidates], seed), -values[candidates]))
    return everything[candidates[order[:count]]]


def _losses(run: FinishedRun, device: str, quiet: bool) -> NDArray[np.float32]:
    """float32[N_tokens]; 0 where a token is not predicted."""
    import torch

    from ifguide.influence.batches import group_by_length
    from ifguide.influence.windows import cut, resolve_lengths
    from ifguide.models.loading import load_causal_model
    from ifguide.system.progress import Progress
    from ifguide.validation.margin import token_losses

    model: Any = load_causal_model(run.model, torch.float32, "model").to(device).eval()
    eod = eod_of(run)
    windows = cut(run.tokens, eod, *resolve_lengths(model.config.max_position_embeddings, None, None))
    losses = np.zeros(run.tokens.num_tokens, np.float32)
    with torch.no_grad(), Progress(run.tokens.num_tokens, "tokens", "losses", quiet=quiet) as progress:
        for group in group_by_length(windows.lengths, _BATCH_TOKENS):
            batch = windows.batch(group).to(model.device)
            losses[windows.places(group)] = token_losses(model, batch.inputs, batch.labels).cpu().numpy()
            progress.update(int(windows.scored[group].sum()))
    return losses


def eod_of(run: FinishedRun) -> int | None:
    """What separates the run's documents."""
    from ifguide.data.text.reader import TextReader

    reader = TextReader.find(run.model, run.tokens.prefix)
    return None if reader is None else reader.eod
