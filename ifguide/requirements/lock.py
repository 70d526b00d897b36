"""The lock: the exact version and the hashes of every dependency, direct and indirect, apart from torch.

``python -m ifguide.requirements.lock NAME ...`` prints the part of the lock that concerns these packages. The
Makefile installs that part first: what builds the packages that come as source only, and what torch depends on.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ifguide.errors import InputError, tell
from ifguide.requirements.ranges import allows

_FIRST_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]*))?")
_PYTHON_CLAUSE = re.compile(r"python_full_version (==|<|>=|<=|>|!=) '([^']+)'")


@dataclass(frozen=True)
class Locked:
    """One version in the lock.

    Attributes:
        name: normalised, as `normalise` gives it.
        version: the exact version.
        marker: where it applies, in the words of a requirements file; "" is everywhere.
        text: its lines in the lock, with the hashes.
    """

    name: str
    version: str
    marker: str
    text: str


def read(text: str | None = None) -> list[Locked]:
    """Every version in ``text``, by default in the lock of this package."""
    if text is None:
        text = resources.files("ifguide.requirements").joinpath("lock.txt").read_text(encoding="utf-8")
    return list(_entries(text))


def version_for(entries: Collection[Locked], name: str, python: str) -> str | None:
    """The version of ``name`` that the lock has for a Python version ``python`` ("3.11.7"); None if it has none.

    Only the clauses about Python are looked at: no dependency of ours is locked to different versions on
    different systems.
    """
    for entry in entries:
        clauses = _PYTHON_CLAUSE.findall(entry.marker)
        if entry.name == normalise(name) and all(allows(f"{sign}{version}", python) for sign, version in clauses):
            return entry.version
    return None


def normalise(name: str) -> str:
    """A package's name as indexes compare names: lower case, every run of ``-_.`` one hyphen."""
    return re.sub(r"[-_.]+", "-", name).lower()


def part(names: Collection[str], path: str | None = None) -> str:
    """The lines of the lock (or of the one at ``path``) for the packages ``names``, as a requirements file.

    Raises:
        InputError: the lock has no such package, or there is no such file.
    """
    try:
        entries = read(None if path is None else Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    wanted = {normalise(name) for name in names}
    entries = [entry for entry in entries if entry.name in wanted]
    if missing := wanted - {entry.name for entry in entries}:
        raise InputError(f"{path or 'lock.txt'} has no {', '.join(sorted(missing))}; `make lock` writes it anew")
    return "".join(entry.text for entry in entries)


def _entries(text: str) -> Iterator[Locked]:
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        found = _FIRST_LINE.match(block)
        if found:
            yield Locked(normalise(found["name"]), found["version"], (found["marker"] or "").strip(), block)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a part of a lock; 2 if it has not all that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m ifguide.requirements.lock",
        description="Print the part of the lock that concerns some packages, as a requirements file.",
        epilog="example:\n  python -m ifguide.requirements.lock setuptools wheel > first.txt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="packages")
    parser.add_argument("--from", dest="path", metavar="FILE", help="another lock than that of this package")
    arguments = parser.parse_args(argv)
    try:
        sys.stdout.write(part(arguments.names, arguments.path))
    except InputError as error:
        tell("lock", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
