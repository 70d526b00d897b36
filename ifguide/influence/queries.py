"""Query sets: prompts with a toxic or a safe completion, as token sequences.

A query is ``EOD + prefix + encode(prompt + completion)``, encoded together as in a document (`TextReader.query`; a
completion carries its leading space). Its loss is the summed cross-entropy of every token that holds a byte of the
completion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.sources.reading import read_rows
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, first_faults
from ifguide.influence.batches import NO_LABEL
from ifguide.system.files import hash_value
from ifguide.system.text_files import NotUnicodeError

_KEYS = {"prompt", "completion", "category", "weight"}


@dataclass(frozen=True, eq=False)
class Query:
    """One query as the model sees it.

    Attributes:
        inputs: int64[T].
        labels: int64[T], `NO_LABEL` before the completion.
        weight: positive; its share in the mean over the set.
        category: free text, or None.
    """

    inputs: np.ndarray
    labels: np.ndarray
    weight: float = 1.0
    category: str | None = None


def queries_fingerprint(queries: Sequence[Query]) -> str:
    """Hash of everything that a set contributes to the direction."""
    return hash_value([[q.inputs.tolist(), q.labels.tolist(), q.weight] for q in queries])


def load_query_sets(
    toxic: str | Path, safe: str | Path | None, reader: TextReader, window: int | None
) -> tuple[list[Query], list[Query]]:
    """Read both sets; without safe queries the second one is empty.

    Raises:
        InputError: a file is missing or not JSONL.
        ConfigError: queries have faults; lists those of both files at once.
    """
    faults: list[str] = []
    sets = [
        [] if path is None else _load(path, role, reader, window, faults)
        for path, role in ((toxic, "toxic"), (safe, "safe"))
    ]
    if faults:
        raise ConfigError(first_faults(faults))
    return sets[0], sets[1]


def _load(
    path: str | Path,
    role: str,
    reader: TextReader,
    window: int | None,
    faults: list[str],
) -> list[Query]:
    rows = list(read_rows(path, f"{role} queries"))
    if not rows:
        faults.append(f"no {role} queries: {path} is empty; write lines with a prompt and a completion")
    queries = []
    for place, row in rows:
        problems = _row_faults(row)
        if not problems:
            try:
                tokens, is_target = reader.query(row["prompt"], row["completion"])
            except NotUnicodeError as error:
                problems = [str(error)]
            else:
                query = _query(tokens, is_target, row.get("weight", 1.0), row.get("category"))
                problems = _query_faults(query, window)
                queries.append(query)
        faults += [place.message(f"{role} queries", problem) for problem in problems]
    return queries


def make_query(
    prompt: Sequence[int],
    completion: Sequence[int],
    eod: int | None,
    weight: float = 1.0,
    category: str | None = None,
) -> Query:
    """Build a query from ids; all of the completion's count."""
    start = [*([] if eod is None else [eod]), *prompt]
    return _query([*start, *completion], [False] * len(start) + [True] * len(completion), weight, category)


def _query(tokens: Sequence[int], is_target: Sequence[bool], weight: float, category: str | None) -> Query:
    ids = np.array(tokens, dtype=np.int64)
    labels = np.where(np.array(is_target, dtype=bool)[1:], ids[1:], NO_LABEL)
    return Query(ids[:-1], labels, float(weight), category)


def _row_faults(row: dict[str, Any]) -> list[str]:
    faults = [f'has no "{key}"' for key in ("prompt", "completion") if key not in row]
    faults += [f'"{key}" must be text' for key in ("prompt", "completion") if not isinstance(row.get(key, ""), str)]
    if row.get("completion") == "":
        faults.append("empty completion")
    unknown = sorted(row.keys() - _KEYS)
    if unknown:
        faults.append(f'unknown key "{unknown[0]}" (known: {", ".join(sorted(_KEYS))})')
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (0 < weight < math.inf):
        faults.append(f"weight {weight!r} must be a positive number")
    return faults


def _query_faults(query: Query, window: int | None) -> list[str]:
    if not (query.labels != NO_LABEL).any():
        return ["the completion has no token to predict (encodes to nothing, or has nothing before it)"]
    if window is not None and len(query.inputs) > window:
        return [f"{len(query.inputs)} tokens are longer than the model's window of {window}; shorten the prompt"]
    return []
