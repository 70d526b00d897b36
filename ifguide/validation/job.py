"""Whether scores say what training does: everything opened and checked first, then the method, then the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import InputError
from ifguide.system.files import write_json, write_text
from ifguide.system.processes import usable_cores
from ifguide.system.progress import clock
from ifguide.validation.margin import QuerySets, load_and_measure
from ifguide.validation.options import LDS, TAIL_PATCH, TOPK, ValidateScores
from ifguide.validation.rankings import (
    LOSS,
    OWN,
    RANDOM,
    Ranking,
    loss_ranking,
    open_mask,
    open_named,
    open_scores,
    random_ranking,
)
from ifguide.validation.retraining import Retrainer, base_of
from ifguide.validation.run import FinishedRun, open_run
from ifguide.validation.subsets import Draw, subset

RESULTS, PAGE, LOSSES = "results.json", "report.html", "loss"
_WELL_READ = 0.95  # epochs below which many tokens were never read


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a validation reads, opened and checked.

    Attributes:
        rankings: the scores, those that they are held against, and random scores.
        masks: name -> places, of topk.
        seeds: of training.
    """

    asked: ValidateScores
    run: FinishedRun
    queries: QuerySets
    rankings: Sequence[Ranking]
    masks: dict[str, NDArray[np.int64]]
    seeds: Sequence[int]
    device: str

    @property
    def folder(self) -> Path:
        return Path(self.asked.output)

    @property
    def trainings(self) -> int:
        """How many there are to do in all, the base run included."""
        if self.asked.method == TAIL_PATCH:
            return 0
        others = self.asked.num_subsets
        if self.asked.method == TOPK:
            others = len(self.rankings) * len(self.asked.shares) + len(self.masks)
        return len(self.seeds) * (1 + others)

    @property
    def jobs(self) -> int:
        import torch

        if self.asked.jobs is not None:
            return self.asked.jobs
        return 1 if torch.cuda.is_available() else max(1, usable_cores() // self.asked.threads)

    def subsets(self) -> list[NDArray[np.int64]]:
        """Of lds and tail-patch."""
        asked = self.asked
        draw = Draw(asked.unit, asked.span_tokens, asked.subset_fraction, asked.seed)
        return [subset(self.run.tokens.starts, self.run.documents, draw, k) for k in range(asked.num_subsets)]


def open_job(asked: ValidateScores) -> Job:
    """Open and check everything before the long work.

    Raises:
        InputError: something cannot be used, or does not fit the run's data.
    """
    from ifguide.models.devices import choose_device
    from ifguide.validation.tail_patch import check_checkpoint, learning_rate_of

    run = open_run(asked.run)
    if asked.method == TAIL_PATCH:
        check_checkpoint(run)
        if asked.learning_rate is None:
            learning_rate_of(run)
    others = open_named("--against", asked.against)
    named = open_named("--mask", asked.mask, (OWN, RANDOM, LOSS, *(name for name, _ in others)))
    rankings = [open_scores(OWN, asked.scores, run.tokens)]
    rankings += [open_scores(name, prefix, run.tokens) for name, prefix in others]
    rankings.append(random_ranking(asked.seed))
    masks = {name: open_mask(prefix, run) for name, prefix in named}
    queries = QuerySets.load(asked.toxic_queries, asked.safe_queries, run.model, run.tokens.prefix)
    job = Job(
        asked, run, queries, rankings, masks, tuple(asked.training_seeds or (run.seed,)), choose_device(asked.device)
    )
    if asked.method == TOPK:
        begin, end = run.places
        if asked.shares[0] * (end - begin) < 1:
            raise InputError(f"--shares {asked.shares[0]:g} of {end - begin} tokens is less than one; raise it")
    else:
        job.subsets()
    return job


def validate_scores(asked: ValidateScores, quiet: bool = False) -> dict[str, Any]:
    """Validate, and write ``results.json``, ``report.html`` and ``run.json`` into the output folder; with ``dry_run``
    say what it would take, and write nothing.

    Returns:
        What ``results.json`` holds; of a dry run the plan.

    Raises:
        IFGuideError: input that cannot be used, or a training that failed; finished ones are kept.
    """
    from ifguide.system.provenance import write_run_record
    from ifguide.validation.report import report_page

    started = time.monotonic()
    job = open_job(asked)
    if asked.dry_run:
        return plan(job)
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {job.folder}: cannot be made ({error.strerror}); choose another folder") from None
    results = {**about(job), **_run(job, quiet)}
    write_json(job.folder / RESULTS, results)
    write_text(job.folder / PAGE, report_page(results))
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(asked).items()}
    write_run_record(job.folder, settings=settings, seconds_of_this_call=round(time.monotonic() - started, 2))
    return results


def plan(job: Job) -> dict[str, Any]:
    """What the job would do, and about how long it would take here: ``seconds`` is None where the run does not say."""
    kept = 0
    if job.asked.method == LDS:
        from ifguide.validation.lds import trainings_of

        retrainer = _retrainer(job, True)
        kept = sum(retrainer.kept(one) is not None for one in trainings_of(job.subsets(), job.seeds))
    left = job.trainings - kept
    each = job.run.seconds
    return {
        **about(job),
        "dry_run": True,
        "trainings": job.trainings,
        "kept": kept,
        "jobs": job.jobs,
        "seconds_of_the_run": each,
        "seconds": None if each is None else round(each * -(-left // job.jobs), 1),
    }


def about(job: Job) -> dict[str, Any]:
    """What was validated, and how."""
    asked, run = job.asked, job.run
    begin, end = run.places
    said: dict[str, Any] = {
        "kind": "validation",
        "method": asked.method,
        "scores": asked.scores,
        "run": str(run.folder),
        "tokens": end - begin,
        "epochs": run.epochs,
        "queries": {"toxic": len(job.queries.toxic), "safe": len(job.queries.safe)},
        "paths": {ranking.name: ranking.path for ranking in job.rankings if ranking.path},
        "seed": asked.seed,
    }
    if asked.method == TOPK:
        said |= {"shares": list(asked.shares), "masks": {name: len(places) for name, places in job.masks.items()}}
    else:
        said |= {
            "subsets": asked.num_subsets,
            "unit": asked.unit,
            "span_tokens": asked.span_tokens if asked.unit == "span" else None,
            "fraction": asked.subset_fraction,
        }
    if asked.method != TAIL_PATCH:
        said |= {"training_seeds": list(job.seeds), "threads": asked.threads}
    if run.epochs < _WELL_READ:
        said["warning"] = (
            f"the run reads {run.epochs:.0%} of its training tokens; to leave out some of the others changes nothing, "
            "and weakens every ranking here"
        )
    return said


def plan_lines(found: dict[str, Any]) -> list[str]:
    """A plan for a person."""
    lines = [f"{found['method']} of {found['scores']} on {found['run']} ({found['tokens']:,} training tokens)"]
    if found["method"] == TOPK:
        lines.append(f"leave out the highest {', '.join(f'{share:.3g}' for share in found['shares'])} by each ranking")
    else:
        lines.append(f"{found['subsets']} subsets of {found['fraction']:.3%} of the tokens, by {found['unit']}")
    if found["method"] == TAIL_PATCH:
        lines.append("no training; each step takes a forward and a backward pass over the documents of its tokens")
        return lines
    seconds = found["seconds"]
    cost = "unknown: its record does not say how long the run took" if seconds is None else f"about {clock(seconds)}"
    lines.append(
        f"{found['trainings']} trainings, {found['kept']} of them kept, {found['jobs']} at a time: {cost}"
        + ("" if seconds is None else f" (the run took {clock(found['seconds_of_the_run'])})")
    )
    return lines


def _run(job: Job, quiet: bool) -> dict[str, Any]:
    asked = job.asked
    if asked.method == TOPK:
        from ifguide.validation.topk import dropped_by, run_topk

        begin, end = job.run.places
        dropped = dropped_by(job.rankings, job.run.places, asked.shares, asked.seed)
        dropped |= {name: [places] for name, places in job.masks.items()}
        retrainer = _retrainer(job, quiet)
        return {**run_topk(dropped, end - begin, job.seeds, job.queries, retrainer), **_repeats(job, retrainer)}
    loss = loss_ranking(job.run, job.folder / LOSSES, job.device, quiet)
    rankings, subsets = [*job.rankings, loss], job.subsets()
    if asked.method == TAIL_PATCH:
        from ifguide.validation.tail_patch import run_tail_patch

        return run_tail_patch(
            job.run, rankings, subsets, job.queries, asked.learning_rate, asked.resamples, asked.seed, quiet
        )
    from ifguide.validation.lds import run_lds

    retrainer = _retrainer(job, quiet)
    found = run_lds(rankings, subsets, job.seeds, job.queries, retrainer, asked.resamples, asked.seed)
    return {**found, **_repeats(job, retrainer)}


def _retrainer(job: Job, quiet: bool) -> Retrainer:
    asked = job.asked
    return Retrainer(
        job.run, job.queries, job.folder.absolute(), asked.threads, job.jobs, job.device, asked.keep_models, quiet
    )


def _repeats(job: Job, retrainer: Retrainer) -> dict[str, Any]:
    """``repeats``: whether the run, trained again, gives the model that there was, judged by the likelihoods."""
    again = retrainer.kept(base_of(job.run.seed))
    if again is None:
        return {"repeats": None}
    before = load_and_measure(job.run.model, job.queries, job.device)
    difference = again.likelihoods.margin(job.queries) - before.margin(job.queries)
    if difference:
        print(
            f"the run trained again has a margin other than its own by {difference:.3g}: another number of threads or "
            "another version rounds otherwise; retrainings are compared with each other alone",
            file=sys.stderr,
        )
    return {"repeats": {"exactly": again.likelihoods == before, "difference": difference}}
