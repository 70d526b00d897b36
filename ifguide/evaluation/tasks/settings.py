"""What the lm-eval tasks are told, through the environment: lm-eval passes nothing of a user's own to a task.

IFGUIDE_EVAL_DATA      folder of the local form (`ifguide.evaluation.eval_data`); unset: the Hugging Face hub
IFGUIDE_SCORER         scorer specs, separated by commas; the first is the main one; default detoxify:unbiased
IFGUIDE_PROMPT_SCORES  what divides RTP and PTP into toxic and non-toxic prompts: `dataset` (default), `scorer`
IFGUIDE_TOKENIZER      folder of the model's tokenizer: for LAMBADA's last token and token perplexity
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError
from ifguide.evaluation.eval_data import HUB, local_file, published_name
from ifguide.system.run_process import this_process

DATA, SCORER, PROMPT_SCORES, TOKENIZER = (
    "IFGUIDE_EVAL_DATA",
    "IFGUIDE_SCORER",
    "IFGUIDE_PROMPT_SCORES",
    "IFGUIDE_TOKENIZER",
)
DEFAULT_SCORER = "detoxify:unbiased"
# what a task's metadata says of prompts that were scored anew
RESCORED = "the scorer of each pipeline"

_supplies: list[Callable[[str], Any]] = []


@dataclass(frozen=True)
class TaskSettings:
    """The environment, read once.

    Attributes:
        data: folder of the local form, None for the hub.
        scorers: specs; the first is the main one.
        rescore_prompts: RTP's and PTP's prompts are scored by the scorer that scores their continuations.
        tokenizer: folder of the model's tokenizer, None if not told.
    """

    data: str | None
    scorers: tuple[str, ...]
    rescore_prompts: bool
    tokenizer: str | None

    def source(self, name: str) -> str:
        """Where the set ``name`` comes from, for the results."""
        return published_name(name, HUB[name]) if self.data is None else str(local_file(self.data, name))


def task_settings() -> TaskSettings:
    """The settings as the environment states them now.

    Raises:
        InputError: IFGUIDE_SCORER names no scorer or one twice, or IFGUIDE_PROMPT_SCORES is neither word.
    """
    given = os.environ.get(SCORER, "").strip() or DEFAULT_SCORER
    scorers = tuple(spec.strip() for spec in given.split(","))
    if not all(scorers) or len(set(scorers)) != len(scorers):
        raise InputError(f"{SCORER}='{given}' must name scorers, each once, separated by commas")
    prompt_scores = os.environ.get(PROMPT_SCORES) or "dataset"
    if prompt_scores not in ("dataset", "scorer"):
        raise InputError(f"{PROMPT_SCORES} is '{prompt_scores}'; it must be dataset or scorer")
    return TaskSettings(
        data=os.environ.get(DATA) or None,
        scorers=scorers,
        rescore_prompts=prompt_scores == "scorer",
        tokenizer=os.environ.get(TOKENIZER) or None,
    )


@contextlib.contextmanager
def scorers_from(supply: Callable[[str], Any]) -> Iterator[None]:
    """Inside the block `scorer_of` asks ``supply``: `ifguide evaluate` brings scorers that remember."""
    _supplies.append(supply)
    try:
        yield
    finally:
        _supplies.pop()


def scorer_of(spec: str) -> Any:
    """The scorer ``spec``, loaded once a process, on this process's GPU if there is one.

    Raises:
        InputError: as `ifguide.scorers.registry.load_scorer`.
    """
    return _supplies[-1](spec) if _supplies else _loaded(spec)


@cache
def _loaded(spec: str) -> Any:
    from ifguide.models.devices import own_device
    from ifguide.scorers.registry import load_scorer
    from ifguide.scorers.reporting import ReportingScorer

    rank = this_process().local_rank or 0
    return ReportingScorer(load_scorer(spec, device=own_device()), quiet=rank != 0)


@cache
def reader_of(folder: str) -> TextReader:
    """The reader of text of the model in ``folder``, made once.

    Raises:
        InputError: the folder has no tokenizer that can be used.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{TOKENIZER}={folder} is not a folder; name the model's")
    return TextReader.of_model(folder)
