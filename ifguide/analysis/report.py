"""Several folders of findings on one page: `ifguide compare` of what `ifguide analyse` wrote.

Whatever has ``findings`` in its results.json, as `ifguide.analysis.findings` makes them, can be put there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.system.files import read_json

KIND, FORMAT = "ifguide-analysis", 1


def holds_findings(folder: str | os.PathLike) -> bool:
    """Whether ``folder`` holds findings, and not an evaluation or nothing."""
    path = Path(folder) / "results.json"
    if not path.is_file():
        return False
    value = read_json(path, "results")
    return isinstance(value, dict) and isinstance(value.get("findings"), list)


def load_findings(folders: Sequence[str | os.PathLike]) -> list[dict[str, Any]]:
    """The results of each of ``folders``, with its ``folder``.

    Raises:
        InputError: one of them holds no findings, or is given twice.
    """
    found = []
    for folder in folders:
        if not holds_findings(folder):
            raise InputError(
                f"{folder} holds no finished analysis; analyses and evaluations are not compared with each other, so "
                "give folders of one kind"
            )
        found.append({**read_json(Path(folder) / "results.json", "results"), "folder": str(folder)})
    names = [str(Path(folder).absolute()) for folder in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{', '.join(twice)} is given twice")
    return found


def verdicts(results: dict[str, Any]) -> list[str]:
    """The sentences of one folder, plot after plot."""
    return [sentence for finding in results["findings"] for sentence in finding["verdict"]]
