"""The scoring pass: (M2) for every token of a dataset, in parts that survive a kill, into one aligned file.

Shapes: B windows, T positions, N_tokens tokens of the dataset.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import read_sidecar
from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.influence import queries as query_sets
from ifguide.influence.batches import Batch, group_by_length
from ifguide.influence.direction import Damping, compute_direction, load_direction, save_direction
from ifguide.influence.documents import Windows, check_tokens, cut, parts, resolve_lengths
from ifguide.influence.factors import check_model, load_factors
from ifguide.influence.forward_mode import first_bad_layer, token_scores
from ifguide.influence.modules import ScoredModel, load_model, track_only
from ifguide.influence.parts import PartStore
from ifguide.progress import Progress
from ifguide.provenance import file_record, origin

# small enough that a kill costs little, large enough to fill batches with windows of equal length
PART_TOKENS = 1 << 18


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a pass over the data needs, checked.

    Attributes:
        identity: JSON-able; whatever can change a score by more than rounding.
        tangents: the direction, one tensor per parameter.
    """

    model: ScoredModel
    windows: Windows
    tangents: dict[str, Tensor]
    batch_tokens: int
    identity: dict[str, Any]


def score(
    model_dir: str | Path,
    data_prefix: str | Path,
    factors_dir: str | Path,
    toxic_queries: str | Path,
    safe_queries: str | Path,
    output: str | Path,
    damping: Damping | None = None,
    seq_length: int | None = None,
    context: int | None = None,
    batch_size: int = 16,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score every token of ``data_prefix``; writes ``output.{bin,idx,json}`` (aligned float32).

    Finished parts lie in ``output.parts/`` until the end: the same call after a kill continues there and gives
    the same bytes. The direction stays in ``output.direction.{safetensors,json}``.

    Args:
        seq_length: window in tokens (None: as the factors were fitted).
        context: overlap of the windows of a longer document (None: as the factors were fitted).
        batch_size: a batch holds as many tokens as this many full windows.

    Returns:
        ``output``, ``tokens``, ``documents``, ``resumed_tokens``, ``seconds``, ``tokens_per_second``, ``scores``
        (min, max, mean, positive share).

    Raises:
        InputError: arguments, files or queries that cannot be used (`MismatchError` where two do not belong together).
        NumericsError: a score is not finite; names the document and the layer.
    """
    started = time.monotonic()
    job = _prepare(
        model_dir, data_prefix, factors_dir, toxic_queries, safe_queries, output, damping or Damping(), seq_length,
        context, batch_size, quiet,
    )  # fmt: skip
    dataset = job.windows.dataset
    done = _finished(output, dataset, job.identity)
    resumed = dataset.num_tokens if done else 0
    summary = done["scores"] if done else {}
    if not done:
        store = PartStore(f"{output}.parts", job.identity)
        plan = list(parts(job.windows, PART_TOKENS))
        resumed = _run(job, store, plan, quiet)
        summary = _summary(store, len(plan))
        sources = {
            "model": {"path": str(Path(model_dir).absolute())},
            "factors": {"path": str(Path(factors_dir).absolute())},
            "toxic_queries": file_record(toxic_queries),
            "safe_queries": file_record(safe_queries),
        }
        sidecar = {
            "run": job.identity,
            "eod": job.identity["eod"],
            "sources": sources,
            "batch_size": batch_size,
            "scores": summary,
            **origin(),
        }
        write_aligned(output, dataset, _all_parts(store, len(plan)), np.float32, sidecar)
        store.remove()
    elif Path(f"{output}.parts").exists():  # killed between the last rename and the end of the removal
        with contextlib.suppress(MismatchError):
            PartStore(f"{output}.parts", job.identity).remove()
    seconds = time.monotonic() - started
    return {
        "output": str(output),
        "tokens": dataset.num_tokens,
        "documents": dataset.num_documents,
        "resumed_tokens": resumed,
        "seconds": round(seconds, 3),
        "tokens_per_second": round((dataset.num_tokens - resumed) / seconds, 1),
        "scores": summary,
    }


def score_batch(job: Job, batch: Batch) -> np.ndarray:
    """Scores of the batch's labelled positions, row by row (float32)."""
    batch = batch.to(job.model.device)
    scores = token_scores(job.model, job.tangents, batch)
    return scores[batch.labelled].to(torch.float32).cpu().numpy()


def _prepare(
    model_dir: str | Path,
    data_prefix: str | Path,
    factors_dir: str | Path,
    toxic_queries: str | Path,
    safe_queries: str | Path,
    output: str | Path,
    damping: Damping,
    seq_length: int | None,
    context: int | None,
    batch_size: int,
    quiet: bool,
) -> Job:
    """Load and check everything, find or compute the direction, and try one batch."""
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: must be at least 1")
    if not Path(output).absolute().parent.is_dir():
        raise InputError(f"--output {output}: folder {Path(output).absolute().parent} does not exist")
    dataset = TokenDataset.open(data_prefix)
    factors = load_factors(factors_dir)
    model = load_model(model_dir)
    check_model(factors, model)
    model = track_only(model, list(factors.record["modules"]))
    if seq_length is None:
        seq_length = factors.record["seq_length"]
        context = factors.record["context"] if context is None else context
    seq_length, context = resolve_lengths(model.window, seq_length, context)
    check_tokens(dataset, model.vocab_size)
    _check_tokenizer(model, dataset)
    toxic, safe = query_sets.load_query_sets(toxic_queries, safe_queries, model.encode, model.eod, model.window)
    about_direction = {
        "model": model.identity,
        "factors": factors.identity,
        "toxic_queries": query_sets.identity(toxic),
        "safe_queries": query_sets.identity(safe),
        "damping": asdict(damping),
    }
    identity = {
        **about_direction,
        "data": fingerprint(dataset, progress=not quiet),
        "eod": model.eod,
        "seq_length": seq_length,
        "context": context,
        "part_tokens": PART_TOKENS,
    }
    batch_tokens = batch_size * seq_length
    direction = load_direction(output, about_direction)
    if direction is None:
        direction = compute_direction(model, factors, toxic, safe, damping, batch_tokens)
        save_direction(output, direction, about_direction)
    windows = cut(dataset, model.eod, seq_length, context)
    job = Job(model, windows, model.split_bias(direction), batch_tokens, identity)
    _try_one_batch(job, batch_size)
    return job


def _try_one_batch(job: Job, batch_size: int) -> None:
    """Fail before the long work: the largest batch fits, the head is understood, the scores are finite."""
    longest = np.argsort(-job.windows.lengths, kind="stable")[:batch_size]
    if len(longest):
        batch = job.windows.batch(longest)
        job.model.check_architecture(batch.inputs[:1].to(job.model.device))
        _require_finite(job, job.windows, longest, batch, score_batch(job, batch))


def _run(job: Job, store: PartStore, plan: list[tuple[slice, int, int]], quiet: bool) -> int:
    """Score the parts that ``store`` lacks; returns how many tokens it had."""
    resumed = sum(stop - start for part, (_, start, stop) in enumerate(plan) if store.finished(part))
    total = job.windows.dataset.num_tokens
    with Progress(total, "tokens", "score", done=resumed, quiet=quiet) as progress:
        for part, (which, start, stop) in enumerate(plan):
            if not store.finished(part):
                store.write(part, _score_part(job, job.windows.select(which), start, stop, progress.update))
    return resumed


def _score_part(job: Job, windows: Windows, start: int, stop: int, on_tokens: Callable[[int], None]) -> np.ndarray:
    """Scores of the flat places [start, stop); 0 where a token has no score (a document's first without EOD)."""
    values = np.zeros(stop - start, dtype=np.float32)
    for group in group_by_length(windows.lengths, job.batch_tokens):
        batch = windows.batch(group)
        scores = score_batch(job, batch)
        _require_finite(job, windows, group, batch, scores)
        values[windows.places(group) - start] = scores
        on_tokens(len(scores))
    on_tokens(stop - start - int(windows.scored.sum()))
    return values


def _require_finite(job: Job, windows: Windows, group: np.ndarray, batch: Batch, scores: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    if not len(bad):
        return
    place = int(windows.places(group)[bad[0]])
    dataset = windows.dataset
    document = int(np.searchsorted(dataset.starts, place, side="right")) - 1
    layer = first_bad_layer(job.model, job.tangents, batch.to(job.model.device))
    raise NumericsError(
        f"the score of token {place - int(dataset.starts[document])} of document {document} is not finite; the first "
        f"such number appears in {layer}; look for broken weights, or raise --damping"
    )


def _finished(output: str | Path, dataset: TokenDataset, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The sidecar of complete scores of this very run, or None."""
    try:
        sidecar = load_aligned(output, dataset, "scores").sidecar
    except InputError:
        return None
    return sidecar if sidecar.get("run") == identity else None


def _check_tokenizer(model: ScoredModel, dataset: TokenDataset) -> None:
    """
    Raises:
        InputError: the model folder has no tokenizer to encode the queries with.
        MismatchError: the dataset's sidecar names another tokenizer.
    """
    if model.tokenizer is None:
        raise InputError(f"model folder {model.directory} has no tokenizer; the queries cannot be encoded")
    expected = (read_sidecar(dataset.prefix).get("tokenizer") or {}).get("identity")
    found = model.tokenizer_identity
    if expected and found and expected != found:
        raise MismatchError(
            f"tokenizer of model {model.directory} ({found[:12]}) is not the one that {dataset.prefix} was made with "
            f"({expected[:12]}); use the model that was trained on this data, or preprocess again"
        )


def _all_parts(store: PartStore, count: int) -> Iterator[np.ndarray]:
    return (store.read(part) for part in range(count))


def _summary(store: PartStore, count: int) -> dict[str, float]:
    """min, max, mean and share of positive values over all parts."""
    size, total, positive, low, high = 0, 0.0, 0, float("inf"), float("-inf")
    for values in _all_parts(store, count):
        size += len(values)
        total += float(values.sum(dtype=np.float64))
        positive += int((values > 0).sum())
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return {"min": low, "max": high, "mean": total / size, "positive_share": positive / size}
