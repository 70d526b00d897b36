"""The outside judges of `real_text_judges` as scorers of the product: ``python:outside:bilstm``.

    PYTHONPATH=benchmarks OUTSIDE_JUDGES=FOLDER ifguide score-generations --scorer python:outside:bilstm ...

Each works in a process and an environment of its own, which is made in ``$OUTSIDE_JUDGES`` on first need and stays open
as long as the command runs.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from real_text_judges import Session


def bilstm(texts: Sequence[str]) -> list[float]:
    """Probabilities [n] of ``toxic``, by toxic-comment-classifier."""
    return _session("bilstm").scores(texts)


def profanity_check(texts: Sequence[str]) -> list[float]:
    """Probabilities [n], by alt-profanity-check."""
    return _session("profanity-check").scores(texts)


def hatesonar(texts: Sequence[str]) -> list[float]:
    """Probabilities [n] of hate or offence, by hatesonar."""
    return _session("hatesonar").scores(texts)


@cache
def _session(name: str) -> Session:
    folder = os.environ.get("OUTSIDE_JUDGES")
    if not folder:
        sys.exit("outside: set OUTSIDE_JUDGES to a folder for the judges' environments")
    session = Session(Path(folder), name)
    atexit.register(session.close)
    return session
