"""Evaluate one model on lm-eval tasks: `ifguide evaluate`.

lm-eval loads the tasks, asks for likelihoods and continuations, and computes the metrics; here is what surrounds it:
checks before long work, journals from which a killed run continues, intervals, and the three files that are kept.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval import evaluator
from lm_eval.tasks import TaskManager

from ifguide import provenance
from ifguide.errors import ConfigError, InputError, MismatchError
from ifguide.evaluation import task_settings
from ifguide.evaluation.evaluation_results import FORMAT, KIND, sample_rows, task_result
from ifguide.evaluation.lm import EvaluationLM
from ifguide.evaluation.models import load_language_model, require_model_folder
from ifguide.evaluation.rad import Rad
from ifguide.evaluation.scorers import load_scorer
from ifguide.evaluation.stored_scorer import StoredScorer
from ifguide.evaluation.task_parts import TASKS_FOLDER
from ifguide.evaluation.task_registry import prepare_lm_eval
from ifguide.evaluation.task_settings import scorers_from
from ifguide.files import hash_file, hash_value, read_json, write_json, write_jsonl, write_text

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_OWN_PREFIX = "ifguide"
# files of a model folder that can change what it says
_MODEL_FILES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")


@dataclass(frozen=True)
class EvaluationSettings:
    """What to evaluate, and how.

    Attributes:
        model: Hugging Face folder of a causal language model.
        tasks: names of lm-eval tasks or groups, or YAML files of tasks.
        output: folder for the results; a second run continues there.
        scorers: specs, see `ifguide.evaluation.scorers`; the first is the main one.
        data: folder of local JSONL for the ifguide tasks; None reads from the hub.
        limit: documents of each task, None for all.
        batch_size: sequences at once, or ``auto``: what fits.
        seed: of everything drawn.
        device: ``auto`` (a GPU where there is one), or torch's name of one.
        dtype: of the weights: a key of `DTYPES`.
        rad: spec of the scorer that steers the decoding (RAD), None for plain sampling.
        rad_weight: nats that its reward is worth.
        rad_top_k: candidates a step.
        rescore_prompts: RTP's prompts are called toxic by the main scorer, not by the data set.
    """

    model: Path
    tasks: tuple[str, ...]
    output: Path
    scorers: tuple[str, ...] = ()
    data: Path | None = None
    limit: int | None = None
    batch_size: int | str = "auto"
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    rad: str | None = None
    rad_weight: float = 10.0
    rad_top_k: int = 20
    rescore_prompts: bool = False

    def check(self) -> None:
        """
        Raises:
            ConfigError: every fault that can be seen before anything is loaded, one line each.
        """
        faults = []
        try:
            require_model_folder(self.model, "language model")
        except InputError as error:
            faults.append(str(error))
        if not self.tasks:
            faults.append("--tasks names no task")
        if self.data is not None and not self.data.is_dir():
            faults.append(f"--data {self.data} is not a folder; `ifguide fetch-eval-data` writes one")
        if self.limit is not None and self.limit < 1:
            faults.append(f"--limit {self.limit} must be at least 1")
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            faults.append(f"--batch-size {self.batch_size} must be a positive number or auto")
        if self.seed < 0:
            faults.append(f"--seed {self.seed} must not be negative")
        if self.dtype not in DTYPES:
            faults.append(f"--dtype {self.dtype} must be one of {', '.join(DTYPES)}")
        if self.device != "auto":
            try:
                torch.empty(0, device=self.device)
            except (RuntimeError, AssertionError) as error:
                faults.append(f"--device {self.device} cannot be used: {str(error).splitlines()[0]}")
        if len(set(self.scorers)) != len(self.scorers):
            faults.append(f"--scorer names one scorer twice: {', '.join(self.scorers)}")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            faults.append(
                "this command runs in one process; on several GPUs start it once for each, with --device cuda:N and an "
                "--output of its own"
            )
        if faults:
            raise ConfigError(faults)

    @property
    def torch_device(self) -> str:
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device


def run_evaluation(settings: EvaluationSettings, *, progress: bool = False) -> dict[str, Any]:
    """Evaluate; write ``samples.jsonl``, ``report.html`` and ``results.json``, whose content is returned.

    Raises:
        ConfigError: options that cannot be used, all at once.
        InputError: an unknown task, data that cannot be loaded, an unusable model or scorer.
        MismatchError: the folder holds the evaluation of another model, seed or decoding.
        NumericsError: logits, likelihoods or scores that are not finite.
    """
    from ifguide.report.evaluation import evaluation_page  # needs jinja2 and matplotlib: before the work

    started = time.monotonic()
    settings.check()
    with _quiet_libraries(), _environment(settings), contextlib.ExitStack() as stack:
        prepare_lm_eval()
        manager = _task_manager(settings.tasks)
        identity = _identity(settings)
        journals = stack.enter_context(_journals(settings.output, identity))
        scorers = Scorers(journals, settings.torch_device, progress)
        stack.callback(scorers.close)
        stack.enter_context(scorers_from(scorers))
        tasks = _load_tasks(manager, settings)
        lm = stack.enter_context(_language_model(settings, journals, progress))
        _seed(settings.seed)
        # intervals are made below, of all metrics in one way: lm-eval need not resample as well
        found = evaluator.evaluate(lm, tasks, limit=settings.limit, bootstrap_iters=0, log_samples=True)
        assert found is not None  # it is None on other ranks than the first, and there is one
        rows = {name: sample_rows(name, logged, scorers.used) for name, logged in found["samples"].items()}
        results = {
            "format": FORMAT,
            "kind": KIND,
            "model": {"path": str(settings.model.absolute()), **identity},
            "settings": _as_dict(settings),
            "scorers": [scorer.describe() for scorer in scorers.used],
            "tasks": {
                name: task_result(tasks["tasks"][name], name, some, found, scorers.used, settings.seed)
                for name, some in rows.items()
            },
            "groups": _numbers(found.get("groups", {})),
            **provenance.environment(),
            "command": provenance.command(),
            "seconds": round(time.monotonic() - started, 3),
        }
    write_jsonl(settings.output / "samples.jsonl", [row for some in rows.values() for row in some])
    write_text(settings.output / "report.html", evaluation_page(results, rows))
    write_json(settings.output / "results.json", results)  # last: who finds it finds all three
    return results


class Scorers:
    """The scorers that the tasks ask for, each loaded once and behind a journal.

    Attributes:
        used: in the order of their first use.
    """

    def __init__(self, journals: Path, device: str, progress: bool):
        self._journals, self._device, self._progress = journals, device, progress
        self._known: dict[str, StoredScorer] = {}

    def __call__(self, spec: str) -> StoredScorer:
        if spec not in self._known:
            scorer = load_scorer(spec, device=self._device)
            self._known[spec] = StoredScorer(scorer, self._journals, progress=self._progress)
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
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(f"the data of {', '.join(settings.tasks)} cannot be loaded {where}: {reason}") from error
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=settings.seed)
    return loaded


@contextlib.contextmanager
def _language_model(settings: EvaluationSettings, journals: Path, progress: bool) -> Iterator[EvaluationLM]:
    loaded = load_language_model(settings.model, DTYPES[settings.dtype], settings.torch_device)
    rad = None
    if settings.rad is not None:
        scorer = load_scorer(settings.rad, device=settings.torch_device)
        rad = Rad(loaded, scorer, settings.rad_weight, settings.rad_top_k)
    lm = EvaluationLM(loaded, journals, seed=settings.seed, batch_size=settings.batch_size, rad=rad, progress=progress)
    try:
        yield lm
    finally:
        lm.close()


def _identity(settings: EvaluationSettings) -> dict[str, Any]:
    """What decides every continuation and likelihood, and so what one folder of journals can belong to."""
    steered = settings.rad and {"scorer": settings.rad, "weight": settings.rad_weight, "top_k": settings.rad_top_k}
    return {
        "identity": _model_identity(settings.model),
        "dtype": settings.dtype,
        "seed": settings.seed,
        "rad": steered,
    }


@contextlib.contextmanager
def _journals(output: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """The folder of the journals, this process's alone, once it is sure that they are of this model and decoding."""
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
        differing = ["model" if key == "identity" else key for key in identity if known.get(key) != identity[key]]
        if differing:
            raise MismatchError(
                f"--output {output} holds an evaluation with another {' and '.join(differing)}; "
                "give another folder, or remove that one"
            )
        yield folder


def _model_identity(folder: Path) -> str:
    """Hash of what the folder's model and tokenizer are made of."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES and path.is_file())
    return hash_value({path.name: hash_file(path) for path in files})


def _as_dict(settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "tasks": list(settings.tasks),
        "scorers": list(settings.scorers),
        "data": None if settings.data is None else str(settings.data.absolute()),
        "limit": settings.limit,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "device": settings.torch_device,
        "rescore_prompts": settings.rescore_prompts,
    }


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
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
