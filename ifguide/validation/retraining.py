"""Training the run again without some tokens, and measuring the margin: each retraining is kept and never done twice.

DIR/trained/NAME.json   what a retraining gave, under the key of everything that decides it
DIR/logs/NAME.log       what it printed
DIR/models/NAME/        its Hugging Face folder, if asked for
DIR/work/NAME/          while it runs
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import ifguide
from ifguide.data.aligned import write_aligned
from ifguide.data.fingerprint import fingerprint
from ifguide.errors import IFGuideError, InputError
from ifguide.system.children import Children
from ifguide.system.files import hash_value, read_json, write_json, write_text
from ifguide.system.progress import Progress
from ifguide.validation.margin import Likelihoods, QuerySets, load_and_measure
from ifguide.validation.run import FinishedRun

# what another launcher said of the process that this command runs in
_NOT_INHERITED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, eq=False)
class Training:
    """One retraining.

    Attributes:
        name: of its files.
        seed: of initialisation, order and dropout.
        dropped: ascending flat places of the tokens that leave the loss; None trains without a mask.
    """

    name: str
    seed: int
    dropped: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Retrained:
    """What a retraining gave.

    Attributes:
        likelihoods: of the queries under its model.
        seconds: that it took.
    """

    likelihoods: Likelihoods
    seconds: float


Retrain = Callable[[Sequence[Training]], Mapping[str, Retrained]]
"""Does all of these, or takes what is kept of them: name -> result."""


@dataclass(frozen=True, eq=False)
class Retrainer:
    """Retrains ``run`` by the product's own training command, several at a time.

    Attributes:
        folder: of the results.
        threads: CPU threads of a training. Other numbers round otherwise, so they are part of what decides a result.
        jobs: trainings at the same time.
        device: that the margin is measured on.
        keep_models: whether the trained models stay.
    """

    run: FinishedRun
    queries: QuerySets
    folder: Path
    threads: int
    jobs: int
    device: str
    keep_models: bool = False
    quiet: bool = False

    def __call__(self, trainings: Sequence[Training]) -> dict[str, Retrained]:
        """
        Raises:
            IFGuideError: a training failed; those that had started are finished and kept.
        """
        found = {one.name: kept for one in trainings if (kept := self.kept(one)) is not None}
        todo = [one for one in trainings if one.name not in found]
        with (
            Progress(len(trainings), "trainings", "retrain", quiet=self.quiet) as progress,
            ThreadPoolExecutor(self.jobs) as pool,
        ):
            progress.skip(len(found))
            running: dict[Future[float], Training] = {pool.submit(self._train, one): one for one in todo}
            failed: IFGuideError | None = None
            try:
                for future in as_completed(running):
                    if future.cancelled():
                        continue
                    if isinstance(error := future.exception(), IFGuideError):
                        failed = failed or error
                        _cancel(running)
                        continue
                    # here and not in the pool: loading a model sets the process' default type for a moment, and a
                    # new thread may sum with another number of threads
                    training = running[future]
                    found[training.name] = self._measure(training, future.result())
                    progress.update(1)
            except BaseException:
                _cancel(running)
                raise
        if failed is not None:
            raise failed
        return found

    def kept(self, training: Training) -> Retrained | None:
        """What an earlier call made of ``training``; None where it has to be done."""
        path = self._record(training)
        if not path.is_file():
            return None
        try:
            record = read_json(path, "record of a retraining")
            if record["key"] != self._key(training):
                return None
            likelihoods = Likelihoods(tuple(record["toxic"]), tuple(record["safe"]))
            return Retrained(likelihoods, float(record["seconds"]))
        except (InputError, KeyError, TypeError):
            return None

    def _measure(self, training: Training, seconds: float) -> Retrained:
        """Of what `_train` left; ``seconds`` are those of the training."""
        started = time.monotonic()
        work = self._work(training)
        likelihoods = load_and_measure(work / "run" / "hf", self.queries, self.device)
        if self.keep_models:
            target = self.folder / "models" / training.name
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (work / "run" / "hf").rename(target)
        done = Retrained(likelihoods, round(seconds + time.monotonic() - started, 2))
        self._record(training).parent.mkdir(exist_ok=True)
        write_json(
            self._record(training),
            {
                "key": self._key(training),
                "seconds": done.seconds,
                "toxic": likelihoods.toxic,
                "safe": likelihoods.safe,
            },
        )
        shutil.rmtree(work)
        return done

    def _train(self, training: Training) -> float:
        """Into ``run`` of its work folder; how many seconds it took."""
        started = time.monotonic()
        work = self._work(training)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        mask = None
        if training.dropped is not None:
            mask = str(work / "mask")
            codes = np.zeros(self.run.tokens.num_tokens, np.uint8)
            codes[training.dropped] = 1
            about = {"encoding": "binary", "counts": {"selected": len(training.dropped)}}
            write_aligned(mask, self.run.tokens, codes, np.uint8, about)
        config = work / "run.yml"
        keys = self.run.keys_of(work / "run", mask, training.seed)
        write_text(config, f"# The retraining {training.name} of {self.run.folder}\n" + yaml.safe_dump(keys))
        command = [sys.executable, "-m", "ifguide.launch", "train.py", str(config), "--engine", "embedded"]
        log = self.folder / "logs" / f"{training.name}.log"
        run_training(command, log, f"retraining '{training.name}'", self.threads)
        return time.monotonic() - started

    def _work(self, training: Training) -> Path:
        return self.folder / "work" / training.name

    def _record(self, training: Training) -> Path:
        return self.folder / "trained" / f"{training.name}.json"

    def _key(self, training: Training) -> str:
        """Hash of everything that decides what comes out."""
        dropped = None if training.dropped is None else [len(training.dropped), _hash_of(training.dropped)]
        keys: dict[str, Any] = self.run.keys_of(Path("save"), None, training.seed)
        data = fingerprint(self.run.tokens)
        about = [ifguide.__version__, keys, data, dropped, self.queries.fingerprint, self.threads, self.device]
        return hash_value(about)


def run_training(command: Sequence[str], log: Path, name: str, threads: int) -> None:
    """
    Raises:
        IFGuideError: it failed; ends with its last lines.
    """
    Children(threads, without=_NOT_INHERITED).run(command, log, name)


def _cancel(futures: Iterable[Future[float]]) -> None:
    for future in futures:
        future.cancel()


def base_of(seed: int) -> Training:
    """The run once more as it was."""
    return Training(f"s{seed}-base", seed)


def _hash_of(places: NDArray[np.int64]) -> str:
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(places, "<i8").tobytes(), digest_size=16).hexdigest()
