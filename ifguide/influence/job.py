"""Everything that a pass over the data needs, loaded, checked and tried on one batch before the long work starts.

Shapes: K behaviours, B windows, T positions, N labelled positions of a batch, O outputs, I inputs with the bias column.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ifguide.data.fingerprint import (
    Fingerprint,
    fingerprint,
    keep_beside,
    known_fingerprint,
    known_range,
    token_range,
)
from ifguide.data.indexed import TokenDataset
from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.influence.backward.precision import in_full_precision
from ifguide.influence.batches import Batch
from ifguide.influence.behaviours import Behaviour, QueryFiles, load_behaviours
from ifguide.influence.curvature.store import Factors, check_model, describe_factors, load_factors
from ifguide.influence.direction import Direction, each_direction, load_direction, save_direction
from ifguide.influence.options import Method, Options
from ifguide.influence.passes import checks
from ifguide.influence.passes.cut_directions import cut_and_keep, find_cut
from ifguide.influence.passes.low_rank import LowRank
from ifguide.influence.passes.method import DTYPES, AnyDirection, Pass, make_pass, settle, settled
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.shards import found_or_made, parse_documents, shard_tokens_for
from ifguide.influence.windows import Cutting, Windows, check_tokens, resolve_lengths
from ifguide.models.devices import choose_device
from ifguide.models.precision import tf32_fault
from ifguide.models.tracked import ScoredModel, load_model, track_only
from ifguide.system.files import folder_faults


@dataclass(frozen=True)
class Inputs:
    """What a run reads and where it writes.

    Attributes:
        model: Hugging Face folder.
        data: prefix of the indexed dataset.
        factors: folder that fit-factors made of this model.
        queries: one behaviour or several.
        output: prefix of the scores.
        eod_token: the separator of documents (None: the data's, else the model's).
    """

    model: str | Path
    data: str | Path
    factors: str | Path
    queries: Sequence[QueryFiles]
    output: str | Path
    eod_token: str | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """A pass over the data, ready to run.

    Attributes:
        scoring: the pass along all directions.
        documents: whose shards this call scores (None: all).
        identities: of each behaviour; JSON-able; whatever can change its scores by more than rounding.
        energy: of a cut to a rank, what `truncate` kept of each direction.
        shard_tokens: about how many tokens are kept at a time.
    """

    model: ScoredModel
    windows: Windows | Cutting
    behaviours: list[Behaviour]
    scoring: Pass
    method: Method
    batch_tokens: int
    documents: slice | None
    identities: list[dict[str, Any]]
    energy: list[dict[str, Any]]
    shard_tokens: int

    def score_batch(self, windows: Windows, group: np.ndarray) -> np.ndarray:
        """Scores[K, N] of the batch ``group`` of ``windows``: its labelled positions, row by row (float32).

        Raises:
            NumericsError: a score is not finite; names token, document and layer.
        """
        batch = windows.batch(group).to(self.model.device)
        scores = self.scoring.scores(batch)[:, batch.labelled].to(torch.float32).cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=0))
        if len(bad):
            self._refuse(windows, batch, int(windows.places(group)[bad[0]]))
        return scores

    def _refuse(self, windows: Windows, batch: Batch, place: int) -> None:
        starts = windows.dataset.starts
        document = bisect_right(starts, place) - 1
        raise NumericsError(
            f"the score of token {place - int(starts[document])} of document {document} is not finite; the first such "
            f"number appears in {self.scoring.first_bad_layer(batch)}; look for broken weights, or raise --damping"
        )


PassFactory = Callable[[ScoredModel, list[Direction], Windows | Cutting, int], Pass]
"""Makes a pass from the model, whole directions, the windows it will score and the tokens of a batch."""


def prepare(inputs: Inputs, options: Options, quiet: bool, own_pass: PassFactory | None = None) -> Job:
    """Load and check everything, find or compute the directions, settle the method, and try one batch.

    What processes that share the output need alike, the first computes, and the others wait and read it. What is there
    already, nobody waits for.

    Args:
        own_pass: makes another pass than those of `passes.method`; ``options.method`` then only names it, in float32
            and along whole directions, in the records.

    Raises:
        InputError: arguments, files or queries that cannot be used (`MismatchError` where two do not belong together).
        NumericsError: a gradient, a direction or a score is not finite.
    """
    faults = [] if own_pass else options.method.faults()
    _check_arguments(inputs, options, faults)
    dataset = TokenDataset.open(inputs.data, mapped=True)
    documents = None if options.documents is None else parse_documents(options.documents, dataset.num_documents)
    factors = describe_factors(inputs.factors)
    if options.method.tf32 and (fault := tf32_fault(torch.device(choose_device()))):
        raise InputError(fault)
    # the pass's own weights; a direction that is missing is computed with others, which are gone before the pass
    model = _load(inputs, DTYPES[options.method.dtype], options.device_map)
    check_model(factors, model)
    model = track_only(model, list(factors.record["modules"]))
    seq_length, context = options.seq_length, options.context
    if seq_length is None:
        seq_length = factors.record["seq_length"]
        context = factors.record["context"] if context is None else context
    seq_length, context = resolve_lengths(model.window, seq_length, context)
    shared = _Shared(
        Path(f"{inputs.output}.lock"), Path(f"{inputs.output}.known.json"), dataset, model.vocab_size, quiet
    )
    if model.reader is None:
        raise InputError(f"model folder {model.directory} has no tokenizer; the queries cannot be encoded")
    behaviours = load_behaviours(inputs.queries, options.per_category, model.reader, model.window)
    # reads the corpus where nobody knows its ids yet, so everything that is cheap to check comes before
    check_tokens(dataset, model.vocab_size, shared.token_range)
    batch_tokens = options.batch_size * seq_length
    windows = Cutting(dataset, model.eod, seq_length, context)
    largest = checks.largest_batch(windows, batch_tokens).to(model.device) if windows.longest else None
    if largest:
        checks.check_model_on(model, largest)
        if model.dtype == torch.float32:
            model.check_architecture(largest.inputs[:1])
    data = shared.fingerprint()
    about = [
        {
            "model": model.fingerprint,
            "factors": factors.fingerprint,
            **behaviour.fingerprints,
            "damping": asdict(options.damping),
        }
        for behaviour in behaviours
    ]
    rank = None if own_pass else options.method.rank
    make = partial(_each_direction, model, inputs, options, batch_tokens, largest)
    directions, energy = _find_or_make_directions(shared, model, inputs, behaviours, about, rank, make)
    frame = {"data": data, "eod": model.eod, "seq_length": seq_length, "context": context}
    method = options.method
    if own_pass is None:
        kept_in = Path(f"{inputs.output}.method.json")
        settled_for = {"directions": about, **frame}
        method = found_or_made(
            shared.lock,
            lambda: settled(options.method, kept_in, settled_for),
            lambda: settle(options.method, model, directions, windows, batch_tokens, kept_in, settled_for, quiet),
        )
        scoring = make_pass(model, directions, method)
    else:
        scoring = own_pass(model, cast(list[Direction], directions), windows, batch_tokens)
    shard_tokens = options.shard_tokens or _shard_tokens(inputs, dataset)
    job = Job(
        model,
        windows,
        behaviours,
        scoring,
        method,
        batch_tokens,
        documents,
        [{**identity, **frame, "shard_tokens": shard_tokens, **method.record()} for identity in about],
        energy,
        shard_tokens,
    )
    if largest:
        _try_one_batch(job, largest)
    return job


def _check_arguments(inputs: Inputs, options: Options, faults: list[str]) -> None:
    """
    Raises:
        ConfigError: arguments that cannot be used; ``faults`` and all others at once.
    """
    if options.batch_size < 1:
        faults.append(f"--batch-size {options.batch_size}: must be at least 1")
    if options.shard_tokens is not None and options.shard_tokens < 1:
        faults.append(f"--shard-tokens {options.shard_tokens}: must be at least 1")
    if options.device_map and options.method.attribution == "position":
        faults.append("--device-map spreads a model for jvp and difference; --attribution position needs it on one GPU")
    faults += folder_faults("--output", inputs.output)
    if not inputs.queries:
        faults.append("no queries: give --toxic-queries and --safe-queries, or --behaviour")
    if faults:
        raise ConfigError(faults)


def _load(inputs: Inputs, dtype: torch.dtype = torch.float32, device_map: str | None = None) -> ScoredModel:
    """
    Raises:
        MismatchError: the data was made with another tokenizer.
    """
    return load_model(inputs.model, dtype, data=inputs.data, eod_token=inputs.eod_token, device_map=device_map)


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all processes of a run need alike of its data: found where it is known, else made by one of them.

    Attributes:
        lock: of the run.
        beside: where it is kept for machines that have another cache; the sidecar of the data, if it says so, is first.
    """

    lock: Path
    beside: Path
    dataset: TokenDataset
    vocab_size: int
    quiet: bool

    def token_range(self) -> tuple[int, int]:
        def make() -> tuple[int, int]:
            low, high = values = token_range(self.dataset, progress=not self.quiet)
            if low >= 0 and high < self.vocab_size:  # else the run is refused, and leaves nothing
                keep_beside(self.beside, self.dataset, values=values)
            return values

        return found_or_made(self.lock, lambda: known_range(self.dataset, self.beside), make)

    def fingerprint(self) -> Fingerprint:
        def make() -> Fingerprint:
            found = fingerprint(self.dataset, progress=not self.quiet)
            keep_beside(self.beside, self.dataset, found=found)
            return found

        return found_or_made(self.lock, lambda: known_fingerprint(self.dataset, self.beside), make)


def _find_or_make_directions(
    shared: _Shared,
    model: ScoredModel,
    inputs: Inputs,
    behaviours: Sequence[Behaviour],
    about: Sequence[dict[str, Any]],
    rank: int | None,
    make: Callable[[Sequence[Behaviour]], Iterator[Direction]],
) -> tuple[list[AnyDirection], list[dict[str, Any]]]:
    """The direction of each behaviour, whole or cut to ``rank``, and what the cut kept.

    Args:
        make: the whole directions of some behaviours, one after the other.
    """
    prefixes = [behaviour.output(inputs.output) for behaviour in behaviours]
    read: dict[int, Direction] = {}

    def find_whole() -> list[Direction] | None:
        """Each is read once, as soon as it is there."""
        for place, prefix in enumerate(prefixes):
            if place not in read and (direction := load_direction(prefix, about[place])) is not None:
                read[place] = direction
        return [read[place] for place in range(len(prefixes))] if len(read) == len(prefixes) else None

    def make_whole() -> list[Direction]:
        """After `find_whole`: those that were not there are made, and saved."""
        missing = [place for place in range(len(prefixes)) if place not in read]
        known = dict(read)
        # the maker comes first, so that it is through, and has let its weights go, when the last one is saved
        for direction, place in zip(make([behaviours[place] for place in missing]), missing, strict=True):
            save_direction(prefixes[place], direction, about[place])
            known[place] = direction
        return [known[place] for place in range(len(prefixes))]

    def make_cut(rank: int) -> tuple[list[dict[str, LowRank]], list[dict[str, Any]]]:
        # read again: where numbers lie in memory moves the last bit of a product, and a later cut is of what is read
        whole = find_whole() or (make_whole() and find_whole())
        assert whole is not None
        return cut_and_keep(whole, rank, prefixes, about, model.device)

    if rank is None:
        return list(found_or_made(shared.lock, find_whole, make_whole)), []
    cut_down, energy = found_or_made(shared.lock, lambda: find_cut(rank, prefixes, about), lambda: make_cut(rank))
    return list(cut_down), energy


def _each_direction(
    model: ScoredModel,
    inputs: Inputs,
    options: Options,
    batch_tokens: int,
    largest: Batch | None,
    behaviours: Sequence[Behaviour],
) -> Iterator[Direction]:
    """A new direction of each of ``behaviours``, in the host's memory; only this reads the factors."""
    pairs = [(behaviour.toxic, behaviour.safe) for behaviour in behaviours]
    load = partial(_load, inputs, device_map=options.device_map)
    with _factors_beside(inputs, model) as factors, in_full_precision(model, load) as exact:
        if exact is not model and largest:
            # in less precision both sides of this comparison are rounded too much
            exact.check_architecture(largest.inputs[:1])
        yield from each_direction(exact, factors, pairs, options.damping, batch_tokens)
        del exact


@contextlib.contextmanager
def _factors_beside(inputs: Inputs, model: ScoredModel) -> Iterator[Callable[[], Factors]]:
    """What gives the factors, hashed and looked at: tens of GB, so a thread does that while a GPU is at the queries."""

    def read() -> Factors:
        factors = load_factors(inputs.factors)
        checks.check_factors(factors, model)
        return factors

    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read)
        if model.device.type == "cpu":  # both would be at the same cores, and a fault is told before the work
            reading.result()
        yield reading.result


def _shard_tokens(inputs: Inputs, dataset: TokenDataset) -> int:
    """As the unfinished run at this output has them, whatever was the default then; else by the size of the data."""
    known = ShardStore.identity_in(f"{inputs.output}.parts")
    match known:
        case {"behaviours": [{"shard_tokens": int(tokens)}, *_]} if tokens > 0:
            return tokens
    return shard_tokens_for(dataset.num_tokens)


def _try_one_batch(job: Job, batch: Batch) -> None:
    """Fail before the long work: the largest batch fits, its scores are finite.

    Raises:
        InputError: the batch does not fit.
        NumericsError: a score is not finite.
    """
    with checks.memory_advice(batch):
        scores = job.scoring.scores(batch)
    if not torch.isfinite(scores).all():
        raise NumericsError(
            "scores of the longest documents are not finite; the first such number appears in "
            f"{job.scoring.first_bad_layer(batch)}; raise --damping"
        )
