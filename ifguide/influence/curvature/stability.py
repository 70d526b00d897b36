"""How far the scores depend on which tokens the factors were fitted on.

The sample's documents are split into two halves, factors are fitted on each, and both directions score the same
documents. Each half has half of the tokens, so the factors of the whole sample are more stable than the figure says.

Shapes: N scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.data.sources.names import input_record
from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.influence.batches import group_by_length
from ifguide.influence.curvature.fit import fit_layers
from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import Direction, precondition, signed_gradient
from ifguide.influence.options import Damping
from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.passes.step_search import top_overlap
from ifguide.influence.queries import Query, load_query_sets
from ifguide.influence.windows import Windows
from ifguide.models.tracked import ScoredModel
from ifguide.statistics.correlation import rank_correlation
from ifguide.system.progress import Progress

SCORED_TOKENS = 100_000


@dataclass(frozen=True)
class Stability:
    """What to measure the stability with.

    Attributes:
        toxic_queries, safe_queries: JSONL; they give the direction.
        tokens: about how many are scored: whole documents.
        damping: as it will be given to ``score``.
    """

    toxic_queries: str | Path
    safe_queries: str | Path
    tokens: int = SCORED_TOKENS
    damping: Damping = field(default_factory=Damping)

    def load_queries(self, model: ScoredModel, windows: Windows, strategy: str) -> tuple[list[Query], list[Query]]:
        """Both query sets, after a look at everything that can be wrong.

        Raises:
            ConfigError: settings, sample or queries that cannot be used; all faults at once.
        """
        faults = []
        if strategy == "identity":
            faults.append("--stability: the identity is not fitted on anything; choose another --strategy")
        elif len(np.unique(windows.document)) < 2:
            faults.append("--stability: a sample of one document has no two halves; give more --max-tokens")
        if self.tokens < 1:
            faults.append(f"--stability-tokens {self.tokens}: must be at least 1")
        if model.reader is None:
            faults.append(f"model folder {model.directory} has no tokenizer; the queries cannot be encoded")
        else:
            try:
                queries = load_query_sets(self.toxic_queries, self.safe_queries, model.reader, model.window)
            except InputError as error:
                faults += str(error).splitlines()
        if faults:
            raise ConfigError(faults)
        return queries

    def measure(
        self,
        load: Callable[[], ScoredModel],
        queries: tuple[Sequence[Query], Sequence[Query]],
        everything: Windows,
        sample: Windows,
        strategy: str,
        batch_tokens: int,
        seed: int,
        quiet: bool = True,
    ) -> dict[str, Any]:
        """Fit on each half of ``sample`` and score documents out of ``everything`` with both.

        Args:
            load: a fresh model each time: fitting spoils one, and only one is held.

        Returns:
            ``rank_correlation`` (Spearman's, of all scores), ``top_1_percent_overlap`` (Jaccard), ``halves`` (documents
            and tokens of each), ``scored_tokens``, ``scored_documents``, ``damping``, ``seed``, records of the queries.

        Raises:
            NumericsError: a factor or a score is not finite.
        """
        model = load()
        toxic, safe = queries
        gradient, device = signed_gradient(model, [(toxic, 1.0), (safe, -1.0)], batch_tokens), model.device
        del model
        parts = halves(sample, seed)
        directions = []
        for part in parts:
            layers = fit_layers(load(), part, strategy, batch_tokens, seed, quiet)
            directions.append(precondition(gradient, Factors(strategy, layers, {}, ""), self.damping, device))
            del layers
        chosen = some_documents(everything, self.tokens, seed)
        first, second = score_both(load(), directions, chosen, batch_tokens, quiet)
        return {
            "rank_correlation": rank_correlation(first, second),
            "top_1_percent_overlap": top_overlap(first, second),
            "halves": [
                {"documents": len(np.unique(part.document)), "tokens": int(part.scored.sum())} for part in parts
            ],
            "scored_tokens": len(first),
            "scored_documents": len(np.unique(chosen.document)),
            "damping": asdict(self.damping),
            "seed": seed,
            "toxic_queries": input_record(self.toxic_queries),
            "safe_queries": input_record(self.safe_queries),
        }


def halves(windows: Windows, seed: int) -> tuple[Windows, Windows]:
    """Two seeded halves of about as many scored tokens, each in data order, that together are all of ``windows``.

    Whole documents, so that no token is in both: the windows of a long document overlap.
    """
    place, order, scored = _shuffled(windows, [seed, 2])
    middle = 1 + int(np.argmin(np.abs(scored[:-1] - scored[-1] / 2)))
    first = np.isin(place, order[:middle])
    return windows.select(np.flatnonzero(first)), windows.select(np.flatnonzero(~first))


def some_documents(windows: Windows, tokens: int, seed: int) -> Windows:
    """All windows of a seeded sample of documents that have at least ``tokens`` scored tokens, or of all documents."""
    place, order, scored = _shuffled(windows, [seed, 3])
    enough = int(np.searchsorted(scored, tokens)) + 1
    return windows.select(np.flatnonzero(np.isin(place, order[:enough])))


def _shuffled(windows: Windows, seed: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The document of each window, counted from 0; the documents in a random order; their scored tokens, summed up."""
    documents, place = np.unique(windows.document, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(documents))
    return place, order, np.cumsum(np.bincount(place, windows.scored)[order])


def score_both(
    model: ScoredModel, directions: Sequence[Direction], windows: Windows, batch_tokens: int, quiet: bool
) -> Tensor:
    """(M2) of every token that ``windows`` score, [2, N] in float64, in an order of its own.

    Raises:
        NumericsError: a score is not finite.
    """
    scoring = ForwardModePass(model, directions)
    pieces = []
    with Progress(int(windows.scored.sum()), "tokens", "score with both halves", quiet=quiet) as progress:
        for group in group_by_length(windows.lengths, batch_tokens):
            batch = windows.batch(group).to(model.device)
            pieces.append(scoring.scores(batch)[:, batch.labelled].to("cpu", torch.float64))
            if not bool(torch.isfinite(pieces[-1]).all()):
                raise NumericsError(
                    "a score with the factors of one half is not finite; the first such number appears in "
                    f"{scoring.first_bad_layer(batch)}; fit on more tokens"
                )
            progress.update(pieces[-1].shape[1])
    return torch.cat(pieces, dim=1)
