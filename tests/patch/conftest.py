"""Every test here runs on the stand-in, and on the real checkout where GPT_NEOX_PATH names one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.patch.checkouts import STAND_IN


@pytest.fixture(scope="module", params=["stand-in", "gpt-neox"])
def checkout(request: Any) -> Path:
    return STAND_IN if request.param == "stand-in" else request.getfixturevalue("neox")
