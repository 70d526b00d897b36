"""How much of a corpus influence itself points at, against directions that can only be noise.

A direction from queries whose labels were permuted knows nothing. The 0.999 quantile of what such directions score is
where noise ends; the share of tokens above it, less the mean of those directions' own shares, is the excess. It counts
tokens that stand out from noise, so it is a lower bound of the share of abuse.

Shapes: D sampled documents, T tokens of them, K permuted directions, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.data.aligned import Aligned, load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES, read_sidecar
from ifguide.errors import InputError
from ifguide.selection.source import read_values
from ifguide.system.progress import counted

FEWEST_DIRECTIONS = 20
_QUANTILE = 0.999
_SAMPLE_TOKENS = 1_000_000
_RESAMPLES = 1000


@dataclass(frozen=True)
class Excess:
    """The share of tokens without EOD that stand out.

    Attributes:
        share, low, high: the excess and its 95 % interval over documents and directions, at least 0.
        threshold: where noise ends.
        observed: share above it.
        expected: mean share of the permuted directions.
        directions, documents, tokens: K, and the size of the sample.
    """

    share: float
    low: float
    high: float
    threshold: float
    observed: float
    expected: float
    directions: int
    documents: int
    tokens: int


def excess_share(
    scores: str | Path, permuted: Sequence[str | Path], *, data: str | Path | None = None, seed: int = 0
) -> Excess:
    """
    Args:
        scores: of influence.
        permuted: of directions from the same queries with permuted labels, of the same tokens.
        data: the tokens, if they moved since they were scored.
        seed: of the sample and the bootstrap.

    Raises:
        InputError: too few directions, or files that cannot be used (`MismatchError`: of other tokens).
    """
    if len(permuted) < FEWEST_DIRECTIONS:
        raise InputError(
            f"--permuted names {len(permuted)} score datasets; noise is known by at least {FEWEST_DIRECTIONS} "
            "directions with permuted labels"
        )
    first = load_aligned(scores, None, SCORES)
    where = data or first.sidecar.get("data_prefix")
    if where is None or not Path(f"{where}.idx").exists():
        raise InputError(f"the tokens that {scores} scored are not at {where}; say where with --data")
    tokens = TokenDataset.open(where)
    rows = [load_aligned(prefix, tokens, SCORES) for prefix in (scores, *permuted)]
    generator = np.random.default_rng(seed)
    values, sizes = _draw(rows, tokens, generator)
    if not values.size:
        raise InputError(f"{scores}: no document has a token")
    threshold = float(np.quantile(values[1:].astype(np.float64), _QUANTILE))
    ends = np.cumsum(sizes)
    above = np.concatenate([np.zeros((len(rows), 1), np.int64), np.cumsum(values > threshold, axis=1)], axis=1)
    counts = above[:, ends] - above[:, ends - sizes]  # int64[1 + K, D]
    total = int(sizes.sum())
    shares = counts.sum(axis=1) / total
    observed, expected = float(shares[0]), float(shares[1:].mean())
    found = np.empty(_RESAMPLES)
    for r in range(_RESAMPLES):
        documents = generator.integers(0, len(sizes), len(sizes))
        directions = 1 + generator.integers(0, len(permuted), len(permuted))
        size = max(1, int(sizes[documents].sum()))
        noise = counts[directions][:, documents].sum() / len(permuted)
        found[r] = (counts[0, documents].sum() - noise) / size
    low, high = np.clip(np.quantile(found, [0.025, 0.975]), 0, 1).tolist()
    share = max(0.0, observed - expected)
    return Excess(
        share, min(low, share), max(high, share), threshold, observed, expected, len(permuted), len(sizes), total
    )


def lines(found: Excess) -> list[str]:
    """For a terminal."""
    return [
        f"share that influence points at: {found.share:.2%} of the tokens, 95 % interval {found.low:.2%} to "
        f"{found.high:.2%}; abuse that does not stand out from noise is not in it",
        f"  {found.observed:.2%} lie above {found.threshold:.4g}, of {found.directions} directions with permuted "
        f"labels {found.expected:.2%} ({counted(found.documents, 'document')}, {counted(found.tokens, 'token')} "
        f"sampled)",
    ]


def _draw(
    rows: Sequence[Aligned], tokens: TokenDataset, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(float32[1 + K, T] scores, int64[D] tokens) of documents at random, without EOD tokens and empty documents."""
    record = read_sidecar(tokens.prefix).get("tokenizer") or {}
    eod = record.get("eod", rows[0].sidecar.get("eod"))
    kept: list[np.ndarray] = []
    sizes: list[int] = []
    total = 0
    for document in generator.permutation(tokens.num_documents):
        if total >= _SAMPLE_TOKENS:
            break
        begin, end = int(tokens.starts[document]), int(tokens.starts[document + 1])
        values = np.stack([read_values(row.values, begin, end) for row in rows])
        if eod is not None:
            values = values[:, read_values(tokens.tokens, begin, end) != eod]
        if values.shape[1]:
            kept.append(values)
            sizes.append(values.shape[1])
            total += values.shape[1]
    empty = np.zeros((len(rows), 0), np.float32)
    return np.concatenate([empty, *kept], axis=1), np.array(sizes, np.int64)
