"""What the folder ``save`` says of the run that it holds: its ``run.json``, and whether its data are still the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ifguide.data.fingerprint import differences, fingerprint
from ifguide.data.indexed import IndexedDataset
from ifguide.engine.arguments import TrainConfig
from ifguide.errors import InputError
from ifguide.system.files import hash_file, read_json
from ifguide.system.run_folder import Earlier, latest_tag


def earlier_run(save: str | None) -> Earlier | None:
    """The run in ``save``; None where it holds no checkpoint."""
    if not save or latest_tag(Path(save)) is None:
        return None
    try:
        record = read_json(Path(save) / "run.json", "run record")
    except InputError:
        record = {}
    keys = record.get("config") if isinstance(record, dict) else None
    if not isinstance(keys, dict):
        return Earlier(None, Path.cwd(), None)
    folder = Path(record.get("folder") or Path.cwd())
    # what a record of before a key was known does not name had its default
    return Earlier(
        {**asdict(TrainConfig()), **keys}, folder, record.get("train_iters"), _changed(record.get("inputs") or {})
    )


def _changed(inputs: dict[str, Any]) -> list[str]:
    found = []
    for prefix, recorded in {**inputs.get("tokens", {}), **inputs.get("penalties", {})}.items():
        try:
            differs = bool(differences(recorded, fingerprint(IndexedDataset.open(prefix))))
        except (InputError, OSError):
            differs = True
        if differs:
            found.append(f"{prefix} has changed since")
    for path, recorded in inputs.get("pairs", {}).items():
        if not Path(path).is_file() or hash_file(path) != recorded:
            found.append(f"{path} has changed since")
    return found
