"""The query margin that scores predict, measured on a model.

    M = mean l(toxic) - mean l(safe),    l(y) = Σ_t log p(y_t | EOD, prompt, y_<t)

Means are Σ w l / Σ w where queries carry weights, as in (M1).

Shapes: Q queries of a set, B of a batch, T positions, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import NumericsError
from ifguide.influence.queries import Query, load_query_sets, queries_fingerprint
from ifguide.statistics.resampling import bootstrap, interval

_BATCH_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class QuerySets:
    """The queries that the margin is taken over."""

    toxic: Sequence[Query]
    safe: Sequence[Query]

    @classmethod
    def load(cls, toxic: str | Path, safe: str | Path, model: str | Path, data: str) -> QuerySets:
        """Read both files, with the tokenizer of ``model`` and the frame of ``data``.

        Raises:
            InputError: a file is missing or not JSONL.
            ConfigError: queries have faults; lists those of both files at once.
        """
        from ifguide.data.text.reader import TextReader
        from ifguide.errors import InputError
        from ifguide.models.folder import read_config

        reader = TextReader.find(model, data)
        if reader is None:
            raise InputError(f"model {model} has no tokenizer; queries cannot be read")
        window = read_config(Path(model)).get("max_position_embeddings")
        return cls(*load_query_sets(toxic, safe, reader, window))

    @property
    def fingerprint(self) -> list[str]:
        return [queries_fingerprint(self.toxic), queries_fingerprint(self.safe)]


@dataclass(frozen=True)
class Likelihoods:
    """``l`` of every query under one model, in nats.

    Attributes:
        toxic, safe: [Q] each.
    """

    toxic: tuple[float, ...]
    safe: tuple[float, ...]

    def means(self, queries: QuerySets) -> tuple[float, float]:
        """(mean l(toxic), mean l(safe))."""
        return _mean(self.toxic, queries.toxic), _mean(self.safe, queries.safe)

    def margin(self, queries: QuerySets) -> float:
        """M."""
        toxic, safe = self.means(queries)
        return toxic - safe


def difference_interval(
    after: Likelihoods, before: Likelihoods, queries: QuerySets, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of M(after) - M(before) over queries: both sets are resampled, both models with the same draws."""
    draws = []
    for offset, now, then, given in (
        (0, after.toxic, before.toxic, queries.toxic),
        (1, after.safe, before.safe, queries.safe),
    ):
        weights = np.array([query.weight for query in given])
        pairs = np.stack([(np.array(now) - np.array(then)) * weights, weights], axis=1)
        draws.append(bootstrap(pairs, "mean", seed=2 * seed + offset))
    return interval(draws[0] - draws[1])


def log_likelihoods(model: Any, queries: QuerySets) -> Likelihoods:
    """``l`` of every query under ``model``, a causal language model of transformers. Sums are in float64.

    Raises:
        NumericsError: one is not finite.
    """
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            toxic, safe = (_sums(model, queries_of) for queries_of in (queries.toxic, queries.safe))
    finally:
        model.train(training)
    for role, values in (("toxic", toxic), ("safe", safe)):
        if bad := np.flatnonzero(~np.isfinite(values)).tolist():
            raise NumericsError(f"the log-likelihood of {role} query {bad[0] + 1} is not finite")
    return Likelihoods(tuple(toxic.tolist()), tuple(safe.tolist()))


def load_and_measure(folder: str | Path, queries: QuerySets, device: str) -> Likelihoods:
    """`log_likelihoods` of the model in a Hugging Face folder, in fp32.

    Raises:
        InputError: it cannot be loaded.
        NumericsError: as there.
    """
    import torch

    from ifguide.models.loading import load_causal_model

    return log_likelihoods(load_causal_model(folder, torch.float32, "model").to(device), queries)


def token_losses(model: Any, inputs: Any, labels: Any) -> Any:
    """``-log p(label)`` float32[N] of the labelled positions of ``inputs``[B, T], row by row.

    No attention mask: padding is on the right, and a causal model never looks there.
    """
    import torch

    from ifguide.influence.batches import NO_LABEL

    labelled = labels != NO_LABEL
    hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[labelled]
    logits = model.get_output_embeddings()(hidden).float()
    return torch.nn.functional.cross_entropy(logits, labels[labelled], reduction="none")


def _sums(model: Any, queries: Sequence[Query]) -> NDArray[np.float64]:
    """[Q]"""
    import torch

    from ifguide.influence.batches import collate, group_by_length

    found = np.empty(len(queries))
    for group in group_by_length(np.array([len(query.inputs) for query in queries]), _BATCH_TOKENS):
        batch = collate([queries[q].inputs for q in group], [queries[q].labels for q in group]).to(model.device)
        losses = torch.zeros(batch.labels.shape, dtype=torch.float64, device=model.device)
        losses[batch.labelled] = token_losses(model, batch.inputs, batch.labels).double()
        found[group] = -losses.sum(dim=1).cpu().numpy()
    return found


def _mean(values: Sequence[float], queries: Sequence[Query]) -> float:
    return float(np.average(np.array(values), weights=[query.weight for query in queries]))
