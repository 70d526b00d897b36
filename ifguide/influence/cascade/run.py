"""A cascade from files to files: the cheap pass, the choice, the exact pass over it, one aligned file at the end.

Both passes are ordinary ones with files of their own, ``S.cheap`` and ``S.exact``: they resume, and processes share
them.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.aligned import Aligned, load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES
from ifguide.errors import ConfigError, InputError
from ifguide.influence.cascade.choice import Choice, calibrate, choose, combine
from ifguide.influence.cascade.head import cheap_pass_on
from ifguide.influence.cascade.report import report
from ifguide.influence.curvature.store import describe_factors
from ifguide.influence.job import Inputs, Job, prepare
from ifguide.influence.options import Cascade, CascadeSettings, Method, Options
from ifguide.influence.score import finished, run, summarise
from ifguide.influence.shards import Share
from ifguide.models.folder import weights_fingerprint
from ifguide.selection import ScoredCorpus, SelectionSettings, Source
from ifguide.system.files import atomic_path
from ifguide.system.provenance import origin

_SECONDS_BETWEEN_LOOKS = 0.5
# what records call the first pass; not for users to name
_CHEAP = "cheap"


def score_cascade(inputs: Inputs, options: Options, cascade: Cascade, quiet: bool = False) -> dict[str, Any]:
    """Score every token cheaply, and what can still make the mask exactly (M2); writes ``output.{bin,idx,json}``.

    Returns:
        As `score`, of the exact pass, with ``cascade``: what the mask lost (`report.report`).

    Raises:
        InputError: arguments, files or queries that cannot be used (`MismatchError` where two do not belong together).
        NumericsError: a score is not finite; names the document and the layer.
    """
    started = time.monotonic()
    if faults := _faults(cascade, options, inputs):
        raise ConfigError(faults)
    share = Share.from_environment()
    exact_inputs = replace(inputs, output=f"{inputs.output}.exact")
    job = prepare(exact_inputs, options, quiet or share.rank > 0)
    dataset = job.windows.dataset
    selection = cascade.settings.selection
    if selection.budget(dataset.num_tokens) >= max(1.0, cascade.settings.keep * dataset.num_tokens):
        raise InputError(
            f"--cascade-max-tokens {selection.max_tokens}: must be below --cascade-keep {cascade.settings.keep} of "
            f"{dataset.num_tokens} tokens, for only what is scored exactly can make the mask"
        )
    about = {**job.identities[0], "cascade": {**asdict(cascade.settings), **_origin_of_cheap(cascade, dataset)}}
    result: dict[str, Any] = {}
    scored, scoring = 0, 0.0
    done = finished(inputs.output, dataset, about)
    nothing_left = done is not None
    if done is None:
        cheap, scored, scoring = _cheap_scores(inputs, options, cascade, dataset, started, quiet)
        choice = choose(_source(cheap.values, job, selection), cascade.settings)
        windows = job.windows.whole()
        job = replace(job, windows=windows.select(choice.windows(windows)), identities=[about])
        result = run(job, exact_inputs, options, started, quiet)
        scored, scoring = scored + result["scored_tokens"], scoring + result["scoring_seconds"]
        if share.rank > 0:
            return result
        exact = load_aligned(exact_inputs.output, dataset, SCORES)
        _write(inputs.output, job, about, cheap, exact, choice, cascade.settings)
        done = load_aligned(inputs.output, dataset, SCORES)
    if share.rank == 0:
        _remove_passes(inputs.output)
    seconds = time.monotonic() - started
    return {
        "resumed_tokens": dataset.num_tokens,
        **result,
        "finished": True,
        "missing_tokens": 0,
        "tokens": dataset.num_tokens,
        "documents": dataset.num_documents,
        "nothing_left": nothing_left,
        "scored_tokens": scored,
        "seconds": round(seconds, 3),
        "scoring_seconds": round(scoring, 3),
        "tokens_per_second": round(scored / scoring, 1) if scored else None,
        "method": asdict(job.method),
        "outputs": [{"output": str(inputs.output), "name": "", "scores": done.sidecar["scores"]}],
        "cascade": done.sidecar["cascade"]["report"],
    }


def _faults(cascade: Cascade, options: Options, inputs: Inputs) -> list[str]:
    """What does not go together, one line each."""
    faults = []
    if (cascade.model is None) != (cascade.factors is None):
        faults.append("--cascade-model and --cascade-factors belong together; give both")
    if (cascade.model is None) == (cascade.scores is None):
        faults.append("a cascade needs --cascade-model with --cascade-factors, or --cascade-scores")
    if options.documents is not None:
        faults.append("--documents cannot be joined with a cascade, which must see all cheap scores; use torchrun")
    selection = cascade.settings.selection
    if selection.max_fraction is not None and selection.max_fraction >= cascade.settings.keep:
        faults.append(
            f"--cascade-max-fraction {selection.max_fraction}: must be below --cascade-keep {cascade.settings.keep}, "
            "for only what is scored exactly can make the mask"
        )
    if options.per_category or len(inputs.queries) > 1:
        faults.append("a cascade scores one behaviour; run it once for each")
    return faults


def _origin_of_cheap(cascade: Cascade, dataset: TokenDataset) -> dict[str, Any]:
    """Identity of whatever gives the cheap scores."""
    if cascade.scores is not None:
        return {"scores": load_aligned(cascade.scores, dataset, SCORES).sidecar["fingerprint"]}
    assert cascade.model is not None and cascade.factors is not None
    return {"model": weights_fingerprint(Path(cascade.model)), "factors": describe_factors(cascade.factors).fingerprint}


def _cheap_scores(
    inputs: Inputs, options: Options, cascade: Cascade, dataset: TokenDataset, started: float, quiet: bool
) -> tuple[Aligned, int, float]:
    """The scores that were given, or those of a cheap pass; every rank waits until rank 0 has merged them.

    Returns:
        The scores, and how many tokens this process scored for them in how many seconds.
    """
    if cascade.scores is not None:
        return load_aligned(cascade.scores, dataset, SCORES), 0, 0.0
    assert cascade.model is not None and cascade.factors is not None
    output = f"{inputs.output}.cheap"
    cheap_inputs = replace(inputs, model=cascade.model, factors=cascade.factors, output=output)
    # the proxy's windows are its factors' own; its step is no matter of the exact pass
    cheap_options = replace(options, method=Method(method=_CHEAP), seq_length=None, context=None)
    job = prepare(cheap_inputs, cheap_options, quiet or Share.from_environment().rank > 0, cheap_pass_on)
    result = run(job, cheap_inputs, cheap_options, started, quiet)
    while (cheap := finished(output, dataset, job.identities[0])) is None:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return cheap, result["scored_tokens"], result["scoring_seconds"]


def _write(
    output: str | Path,
    job: Job,
    about: dict[str, Any],
    cheap: Aligned,
    exact: Aligned,
    choice: Choice,
    settings: CascadeSettings,
) -> None:
    """The combined scores, with the report of what they cost the mask."""
    dataset = job.windows.dataset
    calibration = calibrate(cheap.values, exact.values, choice)

    # where a killed call's successor writes again
    path = _combined(output)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        for piece in combine(cheap.values, exact.values, choice, calibration):
            stream.write(piece.data)
    final = _source(np.memmap(path, np.float32, "r"), job, settings.selection)
    kept: dict[str, Any] = {key: exact.sidecar[key] for key in ("eod", "behaviour", "sources", "batch_size")}
    sidecar = {
        **kept,
        "run": about,
        "cascade": {
            "exact_units": choice.to_text(),
            "unit_tokens": settings.selection.unit_tokens,
            "report": report(final, choice, calibration, settings),
        },
        "scores": summarise(map(final.scores, final.spans())),
        **origin(),
    }
    write_aligned(output, dataset, map(final.scores, final.spans()), np.float32, sidecar)


def _combined(output: str | Path) -> Path:
    """Where the combined scores lie until their report is made."""
    return Path(f"{output}.combined")


def _source(values: np.ndarray, job: Job, selection: SelectionSettings) -> Source:
    dataset = job.windows.dataset
    eod = None if selection.include_eod else job.model.eod
    return Source([ScoredCorpus("scores", values, np.asarray(dataset.starts), dataset.tokens, eod)])


def _remove_passes(output: str | Path) -> None:
    """All scores are in the output by now; the directions stay."""
    _combined(output).unlink(missing_ok=True)
    for name in ("cheap", "exact"):
        for suffix in ("json", "idx", "bin"):
            Path(f"{output}.{name}.{suffix}").unlink(missing_ok=True)
