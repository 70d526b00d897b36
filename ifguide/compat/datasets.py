"""What identifies a loaded data set."""

from __future__ import annotations

from typing import Any


def fingerprint_of(dataset: Any) -> str:
    """Of a `datasets.Dataset`: changes with its rows and with whatever was done to them."""
    return dataset._fingerprint
