"""The scoring pass: (M2) for every token of a dataset, in shards that survive a kill, one aligned file a behaviour.

Shapes: K behaviours, N_tokens tokens of the dataset.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.aligned import Aligned, load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES
from ifguide.errors import InputError, MismatchError
from ifguide.influence.batches import group_by_length
from ifguide.influence.job import Inputs, Job, prepare
from ifguide.influence.options import Options
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.shards import Shard, Share, in_documents, plan_shards, turn, work
from ifguide.system.provenance import origin


def score(inputs: Inputs, options: Options | None = None, quiet: bool = False) -> dict[str, Any]:
    """Score every token of the data; writes ``output.{bin,idx,json}`` (aligned float32), one set a behaviour.

    Finished shards lie in ``output.parts/`` until the end: the same call after a kill continues there and gives
    the same bytes. So do several processes at once, started by torchrun or by DeepSpeed's launcher, or one
    after another for a range of documents each. The directions stay in ``output.direction.{safetensors,json}``.

    Returns:
        ``finished``, ``missing_tokens`` (left to other calls), ``tokens``, ``documents``, ``resumed_tokens`` (kept
        from earlier calls), ``scored_tokens`` (by this process), ``nothing_left`` (all was finished before),
        ``seconds`` (with loading), ``scoring_seconds`` and ``tokens_per_second`` (without; None where nothing was
        scored), ``method``, and for each behaviour in ``outputs``: ``output``, ``name``, ``scores`` (min, max, mean,
        positive share).

    Raises:
        InputError: arguments, files or queries that cannot be used (`MismatchError` where two do not belong together).
        NumericsError: a score is not finite; names the document and the layer.
    """
    options = options or Options()
    started = time.monotonic()
    job = prepare(inputs, options, quiet or Share.from_environment().rank > 0)
    return run(job, inputs, options, started, quiet)


def run(
    job: Job, inputs: Inputs, options: Options, started: float, quiet: bool, share: Share | None = None
) -> dict[str, Any]:
    """`score`, of a job that is prepared; ``started`` by `time.monotonic`, ``share`` if not by the environment: where
    several processes hold one model."""
    share = share or Share.from_environment()
    dataset = job.windows.dataset
    plan = plan_shards(job.windows, job.shard_tokens)
    store = _open_store(job, inputs)
    scored, missing, resumed, scoring = 0, 0, dataset.num_tokens, 0.0
    if store is not None:
        known = store.known
        resumed = sum(shard.tokens for shard in plan if shard.number in known)
        begun = time.monotonic()
        scored = work(store, in_documents(plan, job.documents), share, _worker(job), quiet)
        scoring = time.monotonic() - begun
        if share.rank == 0:
            missing = _merge_if_complete(job, inputs, options, store, plan)
    summaries = _finished(job, inputs)
    shown: list[Any] = [None] * len(job.behaviours) if summaries is None else list(summaries)
    seconds = time.monotonic() - started
    return {
        "finished": summaries is not None,
        "missing_tokens": missing,
        "tokens": dataset.num_tokens,
        "documents": dataset.num_documents,
        "resumed_tokens": resumed,
        "scored_tokens": scored,
        "nothing_left": store is None,
        "seconds": round(seconds, 3),
        "scoring_seconds": round(scoring, 3),
        "tokens_per_second": round(scored / scoring, 1) if scored else None,
        "method": asdict(job.method),
        "outputs": [
            {"output": behaviour.output(inputs.output), "name": behaviour.name, "scores": summary}
            for behaviour, summary in zip(job.behaviours, shown)
        ],
    }


def _open_store(job: Job, inputs: Inputs) -> ShardStore | None:
    """Where the shards are kept; None if every output is finished, and then nothing of them is left."""
    identity = {"behaviours": job.identities}
    folder = Path(f"{inputs.output}.parts")
    with turn(_lock(inputs)):
        if _finished(job, inputs) is None:
            return ShardStore(folder, identity)
        if folder.exists():  # killed between the last rename and the end of the removal
            with contextlib.suppress(MismatchError):
                ShardStore(folder, identity).remove()
        return None


def _merge_if_complete(job: Job, inputs: Inputs, options: Options, store: ShardStore, plan: Sequence[Shard]) -> int:
    """Write the outputs once every shard is there; returns the tokens of those that are not."""
    with turn(_lock(inputs)):
        missing = sum(shard.tokens for shard in plan if not store.finished(shard.number))
        if not missing and not store.removed:
            for index, behaviour in enumerate(job.behaviours):
                if _summary_of(job, inputs, index) is None:
                    _write(job, index, inputs, options, behaviour.output(inputs.output), store, len(plan))
            store.remove()
        return missing


def _write(job: Job, index: int, inputs: Inputs, options: Options, output: str, store: ShardStore, count: int) -> None:
    """One behaviour's shards as one aligned file."""
    behaviour = job.behaviours[index]
    sidecar = {
        "run": job.identities[index],
        "eod": job.model.eod,
        "behaviour": {"name": behaviour.name, "category": behaviour.category},
        "sources": {
            "model": {"path": str(Path(inputs.model).absolute())},
            "factors": {"path": str(Path(inputs.factors).absolute())},
            **behaviour.sources,
        },
        "batch_size": options.batch_size,
        "scores": summarise(_values(store, count, index)),
        **({"energy": job.energy[index]} if job.energy else {}),
        **origin(),
    }
    write_aligned(output, job.windows.dataset, _values(store, count, index), np.float32, sidecar)


def _worker(job: Job) -> Callable[[Shard, Callable[[int], None]], np.ndarray]:
    """Scores[K, tokens] of a shard; 0 where a token has no score (a document's first without EOD)."""

    def score_shard(shard: Shard, on_tokens: Callable[[int], None]) -> np.ndarray:
        assert shard.piece is not None
        windows = job.windows.of(shard.piece)
        values = np.zeros((len(job.behaviours), shard.tokens), dtype=np.float32)
        for group in group_by_length(windows.lengths, job.batch_tokens):
            scores = job.score_batch(windows, group)
            values[:, windows.places(group) - shard.start] = scores
            on_tokens(scores.shape[1])
        on_tokens(shard.tokens - int(windows.scored.sum()))
        return values

    return score_shard


def _lock(inputs: Inputs) -> Path:
    return Path(f"{inputs.output}.lock")


def _finished(job: Job, inputs: Inputs) -> list[dict[str, Any]] | None:
    """Summaries of the complete scores of this very run, one a behaviour; None if one is missing."""
    found = [_summary_of(job, inputs, index) for index in range(len(job.behaviours))]
    return None if None in found else [summary for summary in found if summary is not None]


def _summary_of(job: Job, inputs: Inputs, index: int) -> dict[str, Any] | None:
    found = finished(job.behaviours[index].output(inputs.output), job.windows.dataset, job.identities[index])
    return found.sidecar["scores"] if found else None


def finished(output: str | Path, dataset: TokenDataset, identity: dict[str, Any]) -> Aligned | None:
    """The complete scores of the very run that ``identity`` describes, or None."""
    try:
        scores = load_aligned(output, dataset, SCORES, mapped=True)
    except InputError:
        return None
    return scores if scores.sidecar.get("run") == identity else None


def _values(store: ShardStore, count: int, index: int) -> Iterator[np.ndarray]:
    return (store.read(shard)[index] for shard in range(count))


def summarise(pieces: Iterator[np.ndarray]) -> dict[str, float]:
    """min, max, mean and share of positive values."""
    size, total, positive, low, high = 0, 0.0, 0, float("inf"), float("-inf")
    for values in pieces:
        size += len(values)
        total += float(values.sum(dtype=np.float64))
        positive += int((values > 0).sum())
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return {"min": low, "max": high, "mean": total / size, "positive_share": positive / size}
