"""Nothing that a command writes is replaced in silence: one rule for all of them.

A command is known by its `Request`: the verb, the settings that change what is made, and the content of what is read.
Every product carries the request that made it, in its sidecar, its ``run.json`` or the page itself (see
`ifguide.system.provenance.origin`). `claim` compares it with the request at hand, before the work: the same command
goes on with what a killed one left, or has nothing to do; another one is refused with the names of what differs,
unless the user says ``--overwrite``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ifguide.errors import InputError, MismatchError
from ifguide.system.files import read_json, write_json
from ifguide.system.provenance import origin

# what `claim` found: nothing of it, a part of it by the same command, all of it, something else to be replaced
NEW, UNFINISHED, SAME, REPLACED = "new", "unfinished", "same", "replaced"
OPTION = "--overwrite"
_SECONDS_FOR_THE_FIRST_RANK, _SECONDS_BETWEEN_LOOKS = 120.0, 0.2
_PAGE_START, _PAGE_END = "<!-- ifguide request ", " -->"
_SHOWN = 60


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``, which means the same everywhere."""
    parser.add_argument(
        OPTION,
        action="store_true",
        help="replace what another command made; without it that is refused, and the same command goes on where it "
        "was stopped or has nothing to do",
    )


@dataclass(frozen=True, eq=False)
class Source:
    """Something that a command reads.

    Attributes:
        path: absolute.
        state: changes whenever the files do (sizes and times); None where there is nothing.
        identify: takes the hash of the content; None where it has none (a pipe).
    """

    path: str
    state: str | None
    identify: Callable[[], str | None]

    @cached_property
    def hash(self) -> str | None:
        return self.identify()

    def is_recorded_by(self, record: Any) -> bool:
        """Whether ``record`` is of the same content; hashes it only where the files themselves do not tell."""
        if not isinstance(record, dict) or self.state is None:
            return False
        if (record.get("path"), record.get("state")) == (self.path, self.state):
            return True
        return record.get("hash") is not None and record["hash"] == self.hash


@dataclass(frozen=True, eq=False)
class Request:
    """What decides the product of a command: not the version of the code, the time, or how a path is spelled.

    Attributes:
        verb: as typed.
        settings: option -> value.
        sources: option -> what it names.
        defaults: option -> value, for a record of a version that did not have the option yet.
    """

    verb: str
    settings: Mapping[str, Any]
    sources: Mapping[str, Sequence[Source]]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self, hashes: bool = True) -> dict[str, Any]:
        """For a record; JSON-able.

        Args:
            hashes: also take the hashes of what is read, so that a copy of it is known again.
        """
        return {
            "verb": self.verb,
            "settings": dict(self.settings),
            "inputs": {
                label: [{"path": one.path, "state": one.state, "hash": one.hash if hashes else None} for one in named]
                for label, named in self.sources.items()
            },
        }

    def differences(self, record: Any) -> list[str]:
        """What differs from the request that ``record`` describes, one entry each; empty for the same request."""
        if not isinstance(record, dict) or not isinstance(record.get("verb"), str):
            return ["nothing with it says which command made it"]
        if record["verb"] != self.verb:
            return [f"it was made by `ifguide {record['verb']}`"]
        known, found = record.get("settings") or {}, []
        for option in dict.fromkeys([*self.settings, *known]):
            default = self.defaults.get(option)
            before, now = known.get(option, default), self.settings.get(option, default)
            if before != now:
                found.append(f"{option} was {said(before)}, is {said(now)}")
        read = record.get("inputs") or {}
        for option in dict.fromkeys([*self.sources, *read]):
            found += _changed_sources(option, read.get(option) or [], self.sources.get(option) or [])
        return found


@dataclass(frozen=True)
class Output:
    """What a command is about to write.

    Attributes:
        name: for people, as the user gave it.
        products: files that are there when the command is done.
        records: those of them that carry the request.
        partials: files and folders that only an unfinished command leaves.
        clears: whether ``partials`` are removed where another command is replaced; else that command sorts them out.
        is_folder: ``name`` is a folder, made with its parents.
        read: the request in a record; None where it holds none.
        fault: how a finished product is not as its record says; None where it is.
    """

    name: str
    products: Sequence[Path]
    records: Sequence[Path]
    partials: Sequence[Path] = ()
    clears: bool = True
    is_folder: bool = False
    read: Callable[[Path], Any] = field(default=lambda path: recorded_request(path))
    fault: Callable[[Path], str | None] = field(default=lambda path: None)

    @property
    def marker(self) -> Path:
        """Says whose unfinished work lies here; there while a command works, and after a kill."""
        path = Path(self.name).absolute()
        return path.with_name(f".{path.name}.unfinished.json")

    def present(self) -> list[Path]:
        return [path for path in (*self.products, *self.partials) if path.exists()]

    def remains(self) -> list[Path]:
        return [path for path in self.partials if path.exists()]


@contextlib.contextmanager
def claim(output: Output, request: Request, overwrite: bool = False) -> Iterator[str]:
    """Find out what lies at ``output``, and keep in mind whose work it is until the block has written it.

    Yields:
        `NEW`, `UNFINISHED` (the same command was killed: go on), `SAME` (do nothing), or `REPLACED` (``overwrite``
        said so; what an unfinished command left is gone, finished files are there until they are replaced).

    Raises:
        MismatchError: something else lies there, and ``overwrite`` does not say that it may be replaced; names what
            differs.
    """
    rank = os.environ.get("RANK", "0")
    first = not rank.isdecimal() or int(rank) == 0
    state, again = _state(output, request, overwrite, waits=not first)
    if state == SAME or not first:
        yield state
        return
    made = _make_parents(output)
    mine = _mark(output, request) if state != UNFINISHED else output.marker.exists()
    if state == REPLACED and output.clears:
        for path in output.remains():
            _remove(path)
        if again and output.partials:  # a command that skips what is finished asks its record
            for path in output.records:
                path.unlink(missing_ok=True)
    try:
        yield state
    except BaseException:
        if state != UNFINISHED and mine and not output.remains():
            output.marker.unlink(missing_ok=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise
    records = [path for path in output.records if path.exists()]
    finished = len(records) == len(output.records) and not any(
        request.differences(output.read(path)) for path in records
    )
    if finished or not output.present():
        output.marker.unlink(missing_ok=True)


def look(output: Output, request: Request) -> tuple[str, list[str]]:
    """What `claim` would find, and what differs where that is `REPLACED`; nothing is touched."""
    state, differing, _ = _look(output, request)
    return state, differing


def recorded_request(path: Path) -> Any:
    """The request in a JSON record; None if there is none."""
    try:
        value = read_json(path, "record")
    except InputError:
        return None
    return value.get("request") if isinstance(value, dict) else None


def with_request(page: str) -> str:
    """``page`` (HTML) with the running command's request at its end, where `request_of_page` finds it."""
    request = origin().get("request")
    if request is None:
        return page
    text = (
        json.dumps(request, ensure_ascii=True).replace("-", "\\u002d").replace("<", "\\u003c").replace(">", "\\u003e")
    )
    return f"{page.rstrip()}\n{_PAGE_START}{text}{_PAGE_END}\n"


def request_of_page(path: Path) -> Any:
    """What `with_request` wrote; None in a page without it."""
    try:
        last = path.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
        if last.startswith(_PAGE_START) and last.endswith(_PAGE_END):
            return json.loads(last[len(_PAGE_START) : -len(_PAGE_END)])
    except (OSError, ValueError):
        pass
    return None


def said(value: Any) -> str:
    """A value of a setting, for a message."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def refusal(name: str, differing: Sequence[str], unfinished: bool = False) -> MismatchError:
    """The one sentence of every command that would replace another one's work."""
    what = "holds the unfinished work of another command" if unfinished else "was made by another command"
    return MismatchError(f"{name} {what}: {'; '.join(differing)}; give another output, or {OPTION} to replace it")


def _state(output: Output, request: Request, overwrite: bool, waits: bool) -> tuple[str, bool]:
    """What lies at ``output``, and whether it is the same command's that shall be done again.

    Args:
        waits: let another process mark the output before this one goes on, where something is to be replaced.
    """
    end = time.monotonic() + _SECONDS_FOR_THE_FIRST_RANK
    while True:
        state, differing, unfinished = _look(output, request)
        if not (overwrite and state in (SAME, REPLACED)):
            if state == REPLACED:
                raise refusal(output.name, differing, unfinished)
            return state, False
        if not waits:
            return REPLACED, state == SAME
        if time.monotonic() > end:
            raise InputError(f"{output.name}: the first process does not start to replace it; start them together")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _look(output: Output, request: Request) -> tuple[str, list[str], bool]:
    """(state, what differs, whether the other work is unfinished)."""
    present = output.present()
    if not present:
        return NEW, [], False
    if output.marker.exists():
        differing = request.differences(recorded_request(output.marker))
        return (REPLACED, differing, True) if differing else (UNFINISHED, [], False)
    records = [path for path in output.records if path.exists()]
    for path in records:
        if differing := request.differences(output.read(path)):
            return REPLACED, differing, False
        if fault := output.fault(path):
            return REPLACED, [fault], False
    if not records and any(path in present for path in output.products):
        return REPLACED, ["nothing with it says which command made it"], False
    if records and all(path.exists() for path in output.products):
        return SAME, [], False
    return UNFINISHED, [], False


def _mark(output: Output, request: Request) -> bool:
    """Whether the marker could be written; where it could not, the command itself says why nothing can be."""
    if not output.marker.parent.is_dir():
        return False
    try:
        # what is kept of unfinished work took hours; a copy of its inputs shall do
        write_json(output.marker, {"request": request.as_dict(hashes=bool(output.partials))})
    except Exception:  # a full disk or no permission: told by the command, with its own output's name
        return False
    return True


def _make_parents(output: Output) -> list[Path]:
    """Folders that had to be made for the marker, outermost first."""
    made: list[Path] = []
    if output.is_folder:
        missing = [folder for folder in output.marker.parents if not folder.exists()]
        with contextlib.suppress(OSError):  # told by the command
            for folder in reversed(missing):
                folder.mkdir()
                made.append(folder)
    return made


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _changed_sources(option: str, before: Sequence[Any], now: Sequence[Source]) -> list[str]:
    if len(before) != len(now):
        names = [", ".join(str(one.get("path")) for one in before), ", ".join(one.path for one in now)]
        return [f"{option} was {names[0] or 'not given'}, is {names[1] or 'not given'}"]
    found = []
    for record, source in zip(before, now):
        if source.is_recorded_by(record):
            continue
        path = record.get("path") if isinstance(record, dict) else None
        if source.state is None:
            found.append(f"{option} {source.path} does not exist")
        elif path == source.path:
            found.append(f"{option} {source.path} has changed since")
        else:
            found.append(f"{option} was {path}, is {source.path}, which holds something else")
    return found
