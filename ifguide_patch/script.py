"""Which of the checkout's scripts is being launched: what is said and claimed of a training concerns no other."""

from __future__ import annotations

import os
from pathlib import Path

SCRIPT_VARIABLE = "IFGUIDE_SCRIPT"
_TRAINING = "train.py"


def is_training() -> bool:
    """Whether the launched script is the checkout's ``train.py``."""
    return Path(os.environ.get(SCRIPT_VARIABLE, "")).name == _TRAINING
