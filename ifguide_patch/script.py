"""Which of the checkout's scripts is being launched, and whether it is started: what is said and claimed of a training
concerns no other."""

from __future__ import annotations

import os
from pathlib import Path

SCRIPT_VARIABLE = "IFGUIDE_SCRIPT"
DRY_RUN_VARIABLE = "IFGUIDE_DRY_RUN"
_TRAINING = "train.py"
SCORING = "score.py"


def is_training() -> bool:
    """Whether the launched script is the checkout's ``train.py``."""
    return Path(os.environ.get(SCRIPT_VARIABLE, "")).name == _TRAINING


def is_dry_run() -> bool:
    """Whether everything is to be checked and nothing to be started."""
    return os.environ.get(DRY_RUN_VARIABLE) == "1"


def is_scoring() -> bool:
    """Whether the launched script is ours that scores tokens (`ifguide_patch.scoring`)."""
    return Path(os.environ.get(SCRIPT_VARIABLE, "")).name == SCORING
