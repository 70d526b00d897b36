"""What the training tokens are scored for: one behaviour or several, each with its toxic and its safe queries.

One behaviour writes its scores to ``S``; several, and the categories of one, write to ``S.NAME`` each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.data.sources.names import input_record
from ifguide.data.sources.reading import read_rows
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, IFGuideError
from ifguide.influence.queries import Query, load_query_sets, queries_fingerprint

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class QueryFiles:
    """Where the queries of a behaviour lie.

    Attributes:
        toxic: JSONL of what the model shall not learn.
        safe: JSONL of what it may go on learning; None scores along the toxic queries alone.
        name: ends the output's name; "" for the only behaviour.
    """

    toxic: str | Path
    safe: str | Path | None
    name: str = ""


@dataclass(frozen=True, eq=False)
class Behaviour:
    """One direction to score along.

    Attributes:
        name: "" for the only one.
        category: of the toxic queries, if it is one of several of a file.
    """

    name: str
    toxic: Sequence[Query]
    safe: Sequence[Query]
    files: QueryFiles
    category: str | None = None

    def output(self, prefix: str | Path) -> str:
        """Prefix of this behaviour's files."""
        return f"{prefix}.{self.name}" if self.name else str(prefix)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of both query sets, or of the toxic one alone."""
        found = {"toxic_queries": queries_fingerprint(self.toxic)}
        return found if self.files.safe is None else {**found, "safe_queries": queries_fingerprint(self.safe)}

    @property
    def sources(self) -> dict[str, Any]:
        """Records of both files, for the sidecar, or of the toxic one alone."""
        found = {"toxic_queries": input_record(self.files.toxic)}
        return found if self.files.safe is None else {**found, "safe_queries": input_record(self.files.safe)}


def load_behaviours(
    files: Sequence[QueryFiles],
    per_category: bool,
    reader: TextReader,
    window: int | None,
) -> list[Behaviour]:
    """Read all queries.

    Args:
        per_category: one behaviour for each category of the toxic queries, against all safe queries of the file.

    Raises:
        ConfigError: faults of names and queries; lists those of all files at once.
    """
    faults: list[str] = []
    behaviours: list[Behaviour] = []
    if len(files) > 1 and not all(entry.name for entry in files):
        faults.append("several behaviours need a name each: --behaviour NAME TOXIC.jsonl SAFE.jsonl")
    for entry in files:
        try:
            toxic, safe = load_query_sets(entry.toxic, entry.safe, reader, window)
        except ConfigError as error:
            faults += error.faults
        except IFGuideError as error:
            faults.append(str(error))
        else:
            whole = Behaviour(_slug(entry.name), toxic, safe, entry)
            behaviours += _categories(whole, faults) if per_category else [whole]
    seen: dict[str, str] = {}
    for found in behaviours:
        label = found.category or found.files.name
        if found.name in seen:
            faults.append(f"behaviours {seen[found.name]!r} and {label!r} would both be written to S.{found.name}")
        seen[found.name] = label
    if faults:
        raise ConfigError(faults)
    return behaviours


def output_prefixes(prefix: str | Path, files: Sequence[QueryFiles], per_category: bool) -> list[str]:
    """Where the scores of all behaviours go, before anything is loaded. Faults of the queries are not told here."""
    names = []
    for entry in files:
        name = _slug(entry.name)
        try:
            rows = [row for _, row in read_rows(entry.toxic)] if per_category else []
        except IFGuideError:
            rows = []
        found = sorted({str(row["category"]) for row in rows if row.get("category") is not None})
        names += [_slug(f"{name}-{one}" if name else one) for one in found] if per_category else [name]
    return list(dict.fromkeys(f"{prefix}.{name}" if name else str(prefix) for name in names)) or [str(prefix)]


def _categories(whole: Behaviour, faults: list[str]) -> list[Behaviour]:
    """One behaviour for each category of ``whole``, in alphabetical order."""
    bare = [number for number, query in enumerate(whole.toxic, 1) if query.category is None]
    if bare:
        faults.append(f"toxic queries {whole.files.toxic} query {bare[0]}: no category, which --per-category needs")
    categories = sorted({query.category for query in whole.toxic if query.category is not None})
    return [
        Behaviour(
            _slug(f"{whole.name}-{category}" if whole.name else category),
            [query for query in whole.toxic if query.category == category],
            whole.safe,
            whole.files,
            category,
        )
        for category in categories
    ]


def _slug(name: str) -> str:
    """``name`` as a part of a file name."""
    return _UNFIT.sub("-", name).strip("-") if name else ""
