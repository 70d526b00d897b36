"""The ranges of dependencies that were tested (``tested.json``), and whether a version is inside one.

Standard library only: a fault of the environment is told from inside that environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Dependency:
    """A direct dependency.

    Attributes:
        name: the distribution, as pyproject.toml spells it.
        range: the versions that it may have, ">=5.20,<5.25" say.
        extras: of which extras it is part; "base" is the base install, "locked" the group of that name.
        tried: the versions that the whole suite passed with.
        why: why the range ends where it does; "" where any version below the next major one is expected to do.
        python: the versions of Python that it is for, ">=3.11" say; "" is all.
    """

    name: str
    range: str
    extras: tuple[str, ...]
    tried: tuple[str, ...]
    why: str = ""
    python: str = ""


@cache
def record() -> dict[str, Any]:
    """The contents of ``tested.json``: ``python``, ``torch`` and ``dependencies``."""
    return json.loads(resources.files("ifguide.requirements").joinpath("tested.json").read_text(encoding="utf-8"))


@cache
def dependencies() -> dict[str, Dependency]:
    """Every direct dependency by its name."""
    return {
        name: Dependency(
            name,
            facts["range"],
            tuple(facts["extras"]),
            tuple(facts["tried"]),
            facts.get("why", ""),
            facts.get("python", ""),
        )
        for name, facts in record()["dependencies"].items()
    }


def installed(name: str) -> str | None:
    """The version of the distribution ``name`` in this environment, read without importing it; None if absent."""
    try:
        # a folder that lost its metadata (an aborted install) has a name and no version
        return importlib.metadata.version(name) or None
    except importlib.metadata.PackageNotFoundError:
        return None


def fault(name: str) -> str | None:
    """What is wrong with dependency ``name`` here, in one line; None if it is installed and inside its range."""
    wanted = dependencies()[name].range
    found = installed(name)
    if found is None:
        return f"{name} is not installed"
    if not allows(wanted, found):
        return f"{name} {found} is outside the tested range {wanted}"
    return None


def allows(specifier: str, version: str) -> bool:
    """Whether ``version`` is inside ``specifier``, clauses such as ``>=1.2``, ``<2`` or ``==3.11.*`` with commas.

    A pre-release counts as the release that it leads to, except that ``<2`` does not admit 2.0rc1 either. Builds
    ("2.13.0+cpu") are compared without what follows the plus sign.
    """
    return all(_holds(clause.strip(), version) for clause in specifier.split(",") if clause.strip())


def _holds(clause: str, version: str) -> bool:
    found = re.fullmatch(r"(===?|!=|<=|>=|<|>|~=)\s*(\S+)", clause)
    if not found:
        raise ValueError(f"not a clause of a version range: {clause}")
    sign, bound = found.groups()
    if bound.endswith(".*"):
        prefix = _release(bound[:-2])
        same = _padded(_release(version), len(prefix))[: len(prefix)] == prefix
        return same if sign == "==" else not same
    length = max(len(_release(version)), len(_release(bound)))
    left, right = _padded(_release(version), length), _padded(_release(bound), length)
    if sign == "~=":
        prefix = _release(bound)[:-1]
        return left >= right and left[: len(prefix)] == prefix
    return {
        "==": left == right, "===": left == right, "!=": left != right,
        "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right,
    }[sign]  # fmt: skip


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version before any pre-release, post-release or build: "2.1rc1+cpu" -> (2, 1)."""
    found = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(number) for number in found[1].split(".")) if found else (0,)


def _padded(release: tuple[int, ...], length: int) -> tuple[int, ...]:
    return release + (0,) * (length - len(release))
