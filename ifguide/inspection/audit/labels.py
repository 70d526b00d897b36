"""What people said about the spans of an audit: JSONL of ``{"id", "label"}``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ifguide.errors import InputError, MismatchError
from ifguide.system.text_files import line_message, read_rows

ABUSE, NOT, UNSURE = "abuse", "not", "unsure"
LABELS = (ABUSE, NOT, UNSURE)


def read_labels(path: str | Path, record: dict[str, Any]) -> dict[str, str]:
    """id -> label.

    Args:
        record: of the audit (`ifguide.inspection.audit.drawing.read_audit`).

    Raises:
        InputError: a row that is no label, or two labels of one span.
        MismatchError: labels of another audit.
    """
    known = {span["id"] for span in record["spans"]}
    found: dict[str, str] = {}
    for number, row in read_rows(path, "labels"):
        name, label = row.get("id"), row.get("label")
        if not isinstance(name, str) or label not in LABELS:
            reason = f'expected {{"id": ..., "label": ...}} with a label of {", ".join(LABELS)}'
            raise InputError(line_message("labels", path, number, reason))
        if name not in known:
            raise MismatchError(
                line_message("labels", path, number, f"the audit {record['audit']} has no span {name}; give its labels")
            )
        if found.setdefault(name, label) != label:
            raise InputError(line_message("labels", path, number, f"span {name} has two labels; keep one of them"))
    if not found:
        raise InputError(f"labels {path}: there are none")
    return found
