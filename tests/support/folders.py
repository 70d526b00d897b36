"""What a folder holds, and rows written into it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def files(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too: a leftover temporary shows."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contents(*folders: Path) -> dict[Path, bytes | None]:
    """Every file with its bytes, and every folder."""
    return {
        path: path.read_bytes() if path.is_file() else None for folder in folders for path in sorted(folder.rglob("*"))
    }


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
