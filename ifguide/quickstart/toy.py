"""The preflight of a quickstart: all of its stages once, as small as they go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ifguide.experiments.preflight import preflight, preflight_apart
from ifguide.experiments.stages import Stages
from ifguide.quickstart.pipeline import Job
from ifguide.quickstart.prepare import read_given_corpus
from ifguide.quickstart.settings import QuickstartSettings
from ifguide.quickstart.sizes import TOY

JOB = "quickstart"


def check_here(scorer: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the toy in this process; see `ifguide.experiments.preflight.preflight`."""

    def toy(stages: Stages) -> None:
        # the built-in corpus even for a job on the user's own text, which its first stage reads in no time
        Job(QuickstartSettings(stages.folder, scorer=scorer, sizes=TOY), stages, say).run()

    return preflight(JOB, toy, _settings(scorer), say)


def check_apart(settings: QuickstartSettings, say: Callable[[str], None]) -> bool:
    """Run the toy in a process of its own unless it passed before; returns whether it ran.

    Raises:
        InputError: the user's own text cannot be used, which must not wait for the toy.
        PreflightError: a stage cannot work.
    """
    if settings.input and settings.toxic_queries and settings.safe_queries:
        read_given_corpus(settings.input, settings.toxic_queries, settings.safe_queries, settings.seed)
    scorer = settings.scorer
    command = [JOB, "--preflight-only", *(["--scorer", scorer] if scorer else [])]
    return preflight_apart(JOB, command, _settings(scorer), say)


def _settings(scorer: str | None) -> dict[str, Any]:
    return {"scorer": scorer}
