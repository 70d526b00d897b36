"""Everything that a pass over the data needs, loaded, checked and tried on one batch before the long work starts.

Shapes: K behaviours, B windows, T positions, N labelled positions of a batch, O outputs, I inputs with the bias column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.influence.backward.precision import in_full_precision
from ifguide.influence.batches import Batch
from ifguide.influence.behaviours import Behaviour, QueryFiles, load_behaviours
from ifguide.influence.curvature.store import Factors, check_model, load_factors
from ifguide.influence.direction import Direction, each_direction, load_direction, save_direction
from ifguide.influence.options import Damping, Method, Options
from ifguide.influence.passes import checks
from ifguide.influence.passes.low_rank import truncate
from ifguide.influence.passes.method import DTYPES, AnyDirection, Pass, make_pass, settle
from ifguide.influence.shards import parse_documents, turn
from ifguide.influence.windows import Windows, check_tokens, cut, resolve_lengths
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
    """

    model: ScoredModel
    windows: Windows
    behaviours: list[Behaviour]
    scoring: Pass
    method: Method
    batch_tokens: int
    documents: slice | None
    identities: list[dict[str, Any]]
    energy: list[dict[str, Any]]

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
        document = int(np.searchsorted(starts, place, side="right")) - 1
        raise NumericsError(
            f"the score of token {place - int(starts[document])} of document {document} is not finite; the first such "
            f"number appears in {self.scoring.first_bad_layer(batch)}; look for broken weights, or raise --damping"
        )


PassFactory = Callable[[ScoredModel, list[Direction], Windows, int], Pass]
"""Makes a pass from the model, whole directions, the windows it will score and the tokens of a batch."""


def prepare(inputs: Inputs, options: Options, quiet: bool, own_pass: PassFactory | None = None) -> Job:
    """Load and check everything, find or compute the directions, settle the method, and try one batch.

    Processes that share the output take turns: the first computes, the others read.

    Args:
        own_pass: makes another pass than those of `passes.method`; ``options.method`` then only names it, in float32
            and along whole directions, in the records.

    Raises:
        InputError: arguments, files or queries that cannot be used (`MismatchError` where two do not belong together).
        NumericsError: a gradient, a direction or a score is not finite.
    """
    faults = [] if own_pass else options.method.faults()
    _check_arguments(inputs, options, faults)
    dataset = TokenDataset.open(inputs.data)
    documents = None if options.documents is None else parse_documents(options.documents, dataset.num_documents)
    factors = load_factors(inputs.factors)
    # the pass's own weights; a direction that is missing is computed with others, which are gone before the pass
    model = _load(inputs, DTYPES[options.method.dtype])
    check_model(factors, model)
    model = track_only(model, list(factors.record["modules"]))
    seq_length, context = options.seq_length, options.context
    if seq_length is None:
        seq_length = factors.record["seq_length"]
        context = factors.record["context"] if context is None else context
    seq_length, context = resolve_lengths(model.window, seq_length, context)
    check_tokens(dataset, model.vocab_size)
    if model.reader is None:
        raise InputError(f"model folder {model.directory} has no tokenizer; the queries cannot be encoded")
    behaviours = load_behaviours(inputs.queries, options.per_category, model.reader, model.window)
    batch_tokens = options.batch_size * seq_length
    windows = cut(dataset, model.eod, seq_length, context)
    checks.check_factors(factors, model)
    largest = checks.largest_batch(windows, batch_tokens).to(model.device) if len(windows) else None
    if largest:
        checks.check_model_on(model, largest)
        if model.dtype == torch.float32:
            model.check_architecture(largest.inputs[:1])
    with turn(Path(f"{inputs.output}.lock")):
        data = fingerprint(dataset, progress=not quiet)
        about = [
            {
                "model": model.fingerprint,
                "factors": factors.fingerprint,
                **behaviour.fingerprints,
                "damping": asdict(options.damping),
            }
            for behaviour in behaviours
        ]
        whole = _directions(model, factors, behaviours, options.damping, batch_tokens, inputs, about, largest)
        directions, energy = _cut_to_rank(whole, options.method.rank)
        frame = {"data": data, "eod": model.eod, "seq_length": seq_length, "context": context}
        method = options.method
        if own_pass is None:
            record = Path(f"{inputs.output}.method.json")
            settled_for = {"directions": about, **frame}
            method = settle(method, model, directions, windows, batch_tokens, record, settled_for, quiet)
    if own_pass is None:
        scoring = make_pass(model, directions, method)
    else:
        scoring = own_pass(model, whole, windows, batch_tokens)
    job = Job(
        model,
        windows,
        behaviours,
        scoring,
        method,
        batch_tokens,
        documents,
        [{**identity, **frame, "shard_tokens": options.shard_tokens, **asdict(method)} for identity in about],
        energy,
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
    if options.shard_tokens < 1:
        faults.append(f"--shard-tokens {options.shard_tokens}: must be at least 1")
    faults += folder_faults("--output", inputs.output)
    if not inputs.queries:
        faults.append("no queries: give --toxic-queries and --safe-queries, or --behaviour")
    if faults:
        raise ConfigError(faults)


def _load(inputs: Inputs, dtype: torch.dtype = torch.float32) -> ScoredModel:
    """
    Raises:
        MismatchError: the data was made with another tokenizer.
    """
    return load_model(inputs.model, dtype, data=inputs.data, eod_token=inputs.eod_token)


def _directions(
    model: ScoredModel,
    factors: Factors,
    behaviours: Sequence[Behaviour],
    damping: Damping,
    batch_tokens: int,
    inputs: Inputs,
    about: Sequence[dict[str, Any]],
    largest: Batch | None,
) -> list[Direction]:
    """The saved direction of each behaviour, or a new one that is saved; in the host's memory."""
    prefixes = [behaviour.output(inputs.output) for behaviour in behaviours]
    known = {place: load_direction(prefix, about[place]) for place, prefix in enumerate(prefixes)}
    missing = [place for place, direction in known.items() if direction is None]
    if missing:
        pairs = [(behaviours[place].toxic, behaviours[place].safe) for place in missing]
        with in_full_precision(model, lambda: _load(inputs)) as exact:
            if exact is not model and largest:
                # in less precision both sides of this comparison are rounded too much
                exact.check_architecture(largest.inputs[:1])
            for place, direction in zip(missing, each_direction(exact, factors, pairs, damping, batch_tokens)):
                save_direction(prefixes[place], direction, about[place])
                known[place] = direction
            del exact
    return [direction for direction in known.values() if direction is not None]


def _cut_to_rank(whole: list[Direction], rank: int | None) -> tuple[list[AnyDirection], list[dict[str, Any]]]:
    if rank is None:
        return list(whole), []
    cut_down, energy = zip(*(truncate(direction, rank) for direction in whole))
    return list(cut_down), list(energy)


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
