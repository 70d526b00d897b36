"""Evaluate one model on lm-eval tasks: `ifguide evaluate`.

lm-eval loads the tasks, asks for likelihoods and continuations, and computes the metrics; here is what surrounds it:
checks before long work, journals from which a killed run continues, intervals, and the three files that are kept. Of
several processes the first does that, and shares the work on model and scorers with the others.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval import evaluator
from lm_eval.tasks import TaskManager

from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError, MismatchError, first_line
from ifguide.evaluation.lm.batches import BatchedLM
from ifguide.evaluation.lm.model import EvaluationLM
from ifguide.evaluation.lm.tokens import LIKELIHOODS
from ifguide.evaluation.results import FORMAT, KIND, sample_rows, scorer_record, task_result
from ifguide.evaluation.sampled_docs import sampled_documents
from ifguide.evaluation.settings import EvaluationSettings
from ifguide.evaluation.tasks import settings as task_settings
from ifguide.evaluation.tasks.parts import TASKS_FOLDER
from ifguide.evaluation.tasks.registry import prepare_lm_eval
from ifguide.evaluation.tasks.settings import scorers_from
from ifguide.generation.options import OURS, RAD_WEIGHTS
from ifguide.generation.rad import Rad
from ifguide.models.folder import model_fingerprint
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.scorers.base import Scorer
from ifguide.scorers.registry import load_scorer
from ifguide.scorers.shared import SharedScorer, scoring_job
from ifguide.scorers.stored import StoredScorer
from ifguide.system import provenance
from ifguide.system.files import hash_file, hash_value, read_json, write_json, write_jsonl, write_text
from ifguide.system.quiet import no_foreign_bars
from ifguide.system.ranks import Ranks, Work, joined_ranks

_OWN_PREFIX = "ifguide"
# files of a model folder that an earlier version took for its fingerprint
_MODEL_FILES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")


def run_evaluation(settings: EvaluationSettings, *, progress: bool = False) -> dict[str, Any] | None:
    """Evaluate; write ``samples.jsonl``, ``report.html`` and ``results.json``, whose content is returned.

    Under torchrun or DeepSpeed's launcher every process calls this. The first one returns; the others help, and return
    None.

    Raises:
        ConfigError: options that cannot be used, all at once.
        InputError: an unknown task, data that cannot be loaded, an unusable model or scorer.
        MismatchError: the folder holds the evaluation of another model, seed or decoding.
        NumericsError: logits, likelihoods or scores that are not finite.
    """
    with joined_ranks() as ranks, _quiet_libraries():
        if ranks.rank > 0:
            prepare_lm_eval()
            ranks.jobs |= _jobs(settings)
            ranks.serve()
            return None
        return _lead(settings, ranks, progress)


def _lead(settings: EvaluationSettings, ranks: Ranks, progress: bool) -> dict[str, Any]:
    from ifguide.pages.evaluation import evaluation_page  # needs matplotlib: before the work

    started, about = time.monotonic(), provenance.environment()
    settings.check()
    with _environment(settings), contextlib.ExitStack() as stack:
        prepare_lm_eval()
        manager = _task_manager(settings.tasks)
        guide = None if settings.rad is None else load_scorer(settings.rad, device=settings.torch_device)
        identity = _identity(settings, guide)
        journals = stack.enter_context(_journals(settings, identity))
        scorers = Scorers(journals, settings.torch_device, ranks, progress)
        stack.callback(scorers.close)
        stack.enter_context(scorers_from(scorers))
        tasks = _load_tasks(manager, settings)
        loaded, rad = _model(settings, guide)
        lm = EvaluationLM(
            loaded,
            journals,
            seed=settings.seed,
            batch_size=settings.batch_size,
            rad=rad,
            ranks=ranks,
            progress=progress,
        )
        stack.callback(lm.close)
        _seed(settings.seed)
        # intervals are made below, of all metrics in one way: lm-eval need not resample as well
        samples = sampled_documents(tasks["tasks"], settings.limit, settings.limit_seed)
        found = evaluator.evaluate(lm, tasks, samples=samples, bootstrap_iters=0, log_samples=True)
        assert found is not None  # it is None on other ranks than the first, and it knows of one
        rows = {name: sample_rows(name, logged, scorers.used) for name, logged in found["samples"].items()}
        judged = {
            name: task_result(tasks["tasks"][name], name, some, found, scorers.used, settings.seed)
            | {"sample": _sample(settings, tasks["tasks"][name], some)}
            for name, some in rows.items()
        }
        results = {
            "format": FORMAT,
            "kind": KIND,
            "model": {"path": str(settings.model.absolute()), **identity},
            "settings": {**_as_dict(settings), "processes": ranks.size},
            "scorers": [scorer_record(scorer, judged.values()) for scorer in scorers.used],
            "tasks": judged,
            "groups": _numbers(found.get("groups", {})),
            **about,
            **provenance.origin(),
            "seconds": round(time.monotonic() - started, 3),
        }
    write_jsonl(settings.output / "samples.jsonl", [row for some in rows.values() for row in some])
    write_text(settings.output / "report.html", evaluation_page(results, rows, settings.output.name))
    write_json(settings.output / "results.json", results)  # last: who finds it finds all three
    return results


def _jobs(settings: EvaluationSettings) -> dict[str, Callable[..., Work]]:
    """What another rank than the first does; model and scorers are loaded when they are first needed."""

    @cache
    def lm() -> BatchedLM:
        loaded, rad = _model(settings)
        return BatchedLM(loaded, batch_size=settings.batch_size, rad=rad)

    @cache
    def scorer(spec: str) -> Scorer:
        return load_scorer(spec, device=settings.torch_device)

    return {
        "answer": lambda *common: lm().jobs["answer"](*common),
        "draw": lambda *common: lm().jobs["draw"](*common),
        "score": scoring_job(scorer),
    }


class Scorers:
    """The scorers that the tasks ask for, each loaded once, shared by the ranks and behind a journal.

    Attributes:
        used: in the order of their first use.
    """

    def __init__(self, journals: Path, device: str, ranks: Ranks, progress: bool):
        self._journals, self._device, self._ranks, self._progress = journals, device, ranks, progress
        self._loaded: dict[str, Scorer] = {}
        self._known: dict[str, StoredScorer] = {}
        ranks.jobs["score"] = scoring_job(self._loaded.__getitem__)

    def __call__(self, spec: str) -> StoredScorer:
        if spec not in self._known:
            scorer = self._loaded[spec] = load_scorer(spec, device=self._device)
            shared = SharedScorer(spec, scorer, self._ranks)
            self._known[spec] = StoredScorer(shared, self._journals, progress=self._progress)
        return self._known[spec]

    @property
    def used(self) -> list[StoredScorer]:
        return list(self._known.values())

    def close(self) -> None:
        for scorer in self._known.values():
            scorer.close()


def _task_manager(names: Sequence[str]) -> TaskManager:
    """lm-eval's index of tasks, once it is sure that it knows ``names``."""
    wanted = [name for name in names if not Path(name).is_file()]
    own = all(name.startswith(_OWN_PREFIX) for name in wanted)
    # thousands of files are read to find lm-eval's own tasks
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=not own)
    unknown = [name for name in wanted if name not in manager.all_tasks]
    if unknown:
        near = difflib.get_close_matches(unknown[0], manager.all_tasks, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"lm-eval knows no task {', '.join(unknown)}{hint}")
    return manager


def _load_tasks(manager: TaskManager, settings: EvaluationSettings) -> Any:
    """The tasks with their data: lm-eval's ``{"tasks", "groups", "group_map"}``."""
    try:
        loaded = manager.load(list(settings.tasks))
    except (OSError, ValueError) as error:
        where = (
            f"in {settings.data}" if settings.data else "from the hub; `ifguide fetch-eval-data` and --data DIR help"
        )
        reason = first_line(error)
        raise InputError(f"the data of {', '.join(settings.tasks)} cannot be loaded {where}: {reason}") from error
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=settings.seed)
    return loaded


def _model(settings: EvaluationSettings, guide: Scorer | None = None) -> tuple[LanguageModel, Rad | None]:
    """The model, and what steers it: by ``guide`` where that is loaded already."""
    dtype = getattr(torch, settings.dtype)
    loaded = load_language_model(settings.model, dtype, settings.torch_device, settings.eod_token)
    if settings.rad is None:
        return loaded, None
    scorer = guide or load_scorer(settings.rad, device=settings.torch_device)
    return loaded, Rad(loaded, scorer, settings.rad_weight, settings.rad_top_k, settings.rad_order)


def _identity(settings: EvaluationSettings, guide: Scorer | None) -> dict[str, Any]:
    """What decides every continuation and likelihood, and so what one folder of journals can belong to."""
    weight = RAD_WEIGHTS[settings.rad_order] if settings.rad_weight is None else settings.rad_weight
    steered = guide and {
        "scorer": settings.rad,
        "identity": guide.fingerprint(),
        "weight": weight,
        "top_k": settings.rad_top_k,
        **({"order": settings.rad_order} if settings.rad_order != OURS else {}),
    }
    return {
        "identity": model_fingerprint(settings.model),
        "reader": TextReader.of_model(settings.model, eod_token=settings.eod_token).record()
        | {"likelihoods": LIKELIHOODS},
        "dtype": settings.dtype,
        "seed": settings.seed,
        "rad": steered,
    }


@contextlib.contextmanager
def _journals(settings: EvaluationSettings, identity: dict[str, Any]) -> Iterator[Path]:
    """The folder of the journals, this process's alone, once it is sure that they are of this model and decoding."""
    output = settings.output
    folder = output / "journals"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")  # noqa: SIM115 - open as long as the lock is held
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another evaluation is writing into --output {output}") from None
        except OSError:
            pass  # a file system without locks
        record = folder / "identity.json"
        if not record.exists():
            write_json(record, identity)
        known = read_json(record, "identity of the evaluation")
        recorded = known.get("identity")
        if recorded != identity["identity"] and recorded == _earlier_fingerprint(settings.model):
            known["identity"] = identity["identity"]
        differing = [
            "model" if key == "identity" else key for key in identity if _differs(known.get(key), identity[key])
        ]
        if differing and settings.overwrite:
            for path in folder.iterdir():
                if path.name != "lock":
                    path.unlink()
            write_json(record, identity)
        elif differing:
            raise MismatchError(
                f"--output {output} holds an evaluation with another {' and '.join(differing)}; "
                "give another folder, or remove that one"
            )
        yield folder


def _differs(known: Any, given: Any) -> bool:
    """Whether a recorded value is another one; of earlier versions' RAD the record names no classifier's identity."""
    if isinstance(known, dict) and isinstance(given, dict) and "identity" not in known:
        given = {key: value for key, value in given.items() if key != "identity"}
    return known != given


def _earlier_fingerprint(folder: Path) -> str:
    """What earlier versions recorded in place of `model_fingerprint`: their evaluations go on, too."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES and path.is_file())
    return hash_value({path.name: hash_file(path) for path in files})


def _as_dict(settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "tasks": list(settings.tasks),
        "scorers": list(settings.scorers),
        "data": None if settings.data is None else str(settings.data.absolute()),
        "limit": settings.limit,
        "limit_seed": settings.limit_seed if settings.limit is not None else None,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "device": settings.torch_device,
        "rescore_prompts": settings.rescore_prompts,
    }


def _sample(settings: EvaluationSettings, task: Any, rows: Sequence[Any]) -> dict[str, int] | None:
    """What was drawn of a task's documents; None where all of them were evaluated."""
    available = len(task.eval_docs)
    if settings.limit is None or available <= len(rows):
        return None
    return {"prompts": len(rows), "available": available, "seed": settings.limit_seed}


def _numbers(groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What lm-eval aggregated over a group's tasks."""
    return {
        name: {key: value for key, value in metrics.items() if isinstance(value, float) and np.isfinite(value)}
        for name, metrics in groups.items()
    }


def _seed(seed: int) -> None:
    """For the tasks and the decodings that are lm-eval's own."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 - lm-eval and its tasks draw from it
    torch.manual_seed(seed)


@contextlib.contextmanager
def _environment(settings: EvaluationSettings) -> Iterator[None]:
    """The variables that the tasks read, for the time of this run."""
    wanted = {
        task_settings.TOKENIZER: str(settings.model.absolute()),
        task_settings.PROMPT_SCORES: "scorer" if settings.rescore_prompts else "dataset",
    }
    if settings.data is not None:
        wanted[task_settings.DATA] = str(settings.data.absolute())
    if settings.scorers:
        wanted[task_settings.SCORER] = ",".join(settings.scorers)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """What lm-eval prints goes where progress goes, and only its warnings: stdout is for the result."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr), no_foreign_bars():
            yield
    finally:
        logger.setLevel(level)
