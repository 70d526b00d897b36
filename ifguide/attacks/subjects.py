"""The models under attack, and the files that the attacks read.

A file of texts is JSON Lines: documents ``{"text"}`` or ``{"prompt", "completion"}``, targets and queries
``{"prompt", "completion"}``, prompts ``{"prompt"}``. Every line is checked before a model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifguide.attacks.options import Prompts, Subjects
from ifguide.data.sources.reading import read_rows
from ifguide.errors import ConfigError, InputError, first_faults
from ifguide.models.named import named_models

if TYPE_CHECKING:
    from ifguide.models.language_model import LanguageModel

_CATEGORY = ("category", "label", "subset")


@dataclass(frozen=True)
class Subject:
    """A model under attack.

    Attributes:
        name: of it, in results and plots.
        folder: Hugging Face folder.
    """

    name: str
    folder: Path


def subjects_of(given: Sequence[str]) -> list[Subject]:
    """The models that ``--models`` names.

    Raises:
        ConfigError: names that are missing, are a path, or are given twice.
    """
    return [Subject(name, folder) for name, folder in named_models(given)]


def require_models(subjects: Sequence[Subject]) -> dict[str, dict[str, Any]]:
    """What the results say of each model: ``path`` and ``identity``; no weights are loaded.

    Raises:
        InputError: a folder that is no model.
    """
    from ifguide.models.folder import model_fingerprint, require_model_folder

    for subject in subjects:
        require_model_folder(subject.folder, "language model")
    return {
        subject.name: {"path": str(subject.folder.absolute()), "identity": model_fingerprint(subject.folder)}
        for subject in subjects
    }


def load_subject(folder: str | os.PathLike, options: Subjects) -> LanguageModel:
    """The model of ``folder``, whose weights ask for no gradient.

    Raises:
        InputError, MismatchError: as `load_language_model`.
    """
    import torch

    from ifguide.models.devices import choose_device
    from ifguide.models.language_model import load_language_model

    dtype = getattr(torch, options.dtype)
    lm = load_language_model(folder, dtype, choose_device(options.device), options.eod_token)
    lm.model.requires_grad_(False)
    return lm


def read_targets(path: str, what: str = "targets", limit: int | None = None) -> list[dict[str, Any]]:
    """``{"id", "prompt", "completion"}`` of each line.

    Raises:
        ConfigError: lines that are none; all of them at once.
        InputError: missing, or not JSONL.
    """
    rows = _read(path, what, lambda row: _lacks(row, "prompt", "completion") or _empty(row, "completion"))
    return [
        {"id": row.get("id", index), "prompt": row["prompt"], "completion": row["completion"]}
        for index, row in enumerate(rows[:limit])
    ]


def read_documents(path: str, what: str) -> list[str]:
    """The text of each line: its ``text``, or its ``prompt`` and ``completion``.

    Raises:
        ConfigError, InputError: as `read_targets`.
    """

    def fault(row: Mapping[str, Any]) -> str | None:
        if "text" in row:
            return _lacks(row, "text") or _empty(row, "text")
        return 'needs a "text", or a "prompt" and a "completion"' if _lacks(row, "prompt", "completion") else None

    rows = _read(path, what, fault)
    return [row["text"] if "text" in row else row["prompt"] + row["completion"] for row in rows]


def read_prompts(options: Prompts) -> list[dict[str, Any]]:
    """``{"id", "prompt", "category"}`` of the lines that are asked for.

    Raises:
        ConfigError, InputError: as `read_targets`; also, no line is of the subset.
    """
    rows = prompt_rows(options.prompts)
    kept = [row for row in rows if options.subset is None or row["category"] == options.subset]
    if not kept:
        found = ", ".join(sorted({str(row["category"]) for row in rows}))
        raise InputError(f"--subset {options.subset}: prompts {options.prompts} has only {found}")
    return kept


def prompt_rows(path: str, limit: int | None = None) -> list[dict[str, Any]]:
    """``{"id", "prompt", "category"}`` of each line; the category is None where none is named.

    Raises:
        ConfigError, InputError: as `read_targets`.
    """
    rows = _read(path, "prompts", lambda row: _lacks(row, "prompt"))
    return [
        {
            "id": row.get("id", index),
            "prompt": row["prompt"],
            "category": next((str(row[key]) for key in _CATEGORY if row.get(key) is not None), None),
        }
        for index, row in enumerate(rows[:limit])
    ]


def read_frames(path: str | None) -> list[tuple[str, str]]:
    """(name, text) of each frame; the prompt alone where there is no file.

    Raises:
        ConfigError, InputError: as `read_targets`; also, two frames of one name.
    """
    if path is None:
        return [("plain", "{prompt}")]

    def fault(row: Mapping[str, Any]) -> str | None:
        lacking = _lacks(row, "name", "text")
        return lacking or (None if row["text"].count("{prompt}") == 1 else 'its "text" needs {prompt} once')

    rows = _read(path, "frames", fault)
    names = [row["name"] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"frames {path}: two are named '{twice[0]}'")
    return [(row["name"], row["text"]) for row in rows]


def read_patterns(path: str) -> list[str]:
    """
    Raises:
        ConfigError, InputError: as `read_targets`.
    """
    import re

    def fault(row: Mapping[str, Any]) -> str | None:
        if lacking := _lacks(row, "pattern"):
            return lacking
        try:
            re.compile(row["pattern"])
        except re.error as error:
            return f"its pattern is no regular expression: {error}"
        return None

    return [row["pattern"] for row in _read(path, "refusals", fault)]


def _read(path: str, what: str, fault: Any) -> list[dict[str, Any]]:
    rows, faults = [], []
    for place, row in read_rows(path, what):
        rows.append(row)
        if found := fault(row):
            faults.append(place.message(what, found))
    if not rows:
        faults.append(f"{what} {path}: the file is empty")
    if faults:
        raise ConfigError(first_faults(faults))
    return rows


def _lacks(row: Mapping[str, Any], *fields: str) -> str | None:
    missing = [field for field in fields if not isinstance(row.get(field), str)]
    return f'needs a "{missing[0]}" that is text' if missing else None


def _empty(row: Mapping[str, Any], field: str) -> str | None:
    return None if row[field].strip() else f'its "{field}" is empty'
