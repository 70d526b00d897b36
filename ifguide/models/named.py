"""Models with names, as verbs that look at several of them are given them: ``NAME=DIR``, or ``DIR`` alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ifguide.errors import ConfigError


def named_models(given: Sequence[str]) -> list[tuple[str, Path]]:
    """The name and folder of each model, in order; a folder without a name has its own. Folders are not looked at.

    Raises:
        ConfigError: names that are missing, are a path, or are given twice; all of them.
    """
    found: list[tuple[str, Path]] = []
    faults: list[str] = []
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals:
            name, folder = Path(os.path.abspath(text)).name, text  # noqa: PTH100 (keeps links)
        name = name.strip()
        if not name or not folder or name.startswith(".") or Path(name).name != name:
            faults.append(f"--models {text}: give NAME=DIR, as in base=models/base, where NAME is no path")
        else:
            found.append((name, Path(folder)))
    counts = Counter(name for name, _ in found)
    faults += [
        f"--models: {count} models are named '{name}'; give each a name of its own, NAME=DIR"
        for name, count in counts.items()
        if count > 1
    ]
    if faults:
        raise ConfigError(faults)
    return found
