"""How the verbs that write come by the rule of `ifguide.system.outputs`: each says what it reads and what it makes.

A verb module has ``WRITES``; `ifguide.verbs` adds ``--overwrite`` and claims the output before the verb runs.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.compat.argparse import options
from ifguide.config.options import Named
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import IndexedDataset
from ifguide.data.sidecar import file_states
from ifguide.data.sources.names import absolute_name, input_hash, local_files
from ifguide.errors import InputError
from ifguide.scorers.plugin import source_of
from ifguide.system.files import hash_unchanged, hash_value, read_json, write_json
from ifguide.system.outputs import Output, Request, Source, request_of_page

_NEVER = {"help", "json", "quiet", "log", "overwrite", "local_rank"}
_DATASET = ("bin", "idx", "json")


@dataclass(frozen=True)
class Writes:
    """What a verb reads and writes, in terms of its parsed options.

    Attributes:
        output: what will be written; None where the options ask for no file.
        named: which options name inputs, outputs and scorers, and which change only the cost.
        sources: what the inputs are, by option, where they are not the paths that the options hold.
        settle: puts settings that depend on other options in their place.
        keeps_result: whether the result of the verb goes into the record; else the record says the same.
        shows: whether the verb has more to say than what it writes: then it runs all the same, and writes nothing.
        result: what the verb returned, from its options and the record of the finished product.
        is_replayed: whether `ifguide provenance` makes the product again; else it is taken as given.
    """

    output: Callable[[argparse.Namespace], Output | None]
    named: Named
    sources: Callable[[argparse.Namespace], dict[str, list[Source]]] | None = None
    settle: Callable[[argparse.Namespace, dict[str, Any]], None] | None = None
    keeps_result: bool = False
    shows: bool = False
    result: Callable[[argparse.Namespace, dict[str, Any]], dict[str, Any]] | None = None
    is_replayed: bool = False

    def _refuse_inputs(self, args: argparse.Namespace, sources: Mapping[str, Sequence[Source]]) -> None:
        """
        Raises:
            InputError: an output is an input too, and would be gone before it is read.
        """
        read = {one.path for found in sources.values() for one in found}
        for name in self.named.outputs:
            for path in _split(getattr(args, name), 0)[1]:
                if os.path.abspath(path) in read:  # noqa: PTH100
                    option = f"--{name.replace('_', '-')}"
                    raise InputError(f"{option} {path} is the name of an input or of another output; choose another")

    def keep_result(self, output: Output, result: dict[str, Any]) -> None:
        """Put ``result`` into the record, for the call that will have nothing to do."""
        record = output.records[0]
        if self.keeps_result and result.get("finished", True) and record.is_file():
            write_json(record, {**_record(record), "result": result})

    def kept_result(self, args: argparse.Namespace, output: Output) -> dict[str, Any]:
        """What the verb returned when it made the finished ``output``."""
        record = _record(output.records[0])
        if self.keeps_result:
            return record.get("result") or {}
        return self.result(args, record) if self.result else {"output": output.name, **record}

    def request(self, verb: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> Request:
        """What decides the product of ``args``."""
        settings: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        sources: dict[str, list[Source]] = {}
        for action in options(parser):
            value, name = getattr(args, action.dest, None), action.dest
            if name in _NEVER or name in self.named.costs or name in self.named.outputs:
                continue
            label = max(action.option_strings, key=len) if action.option_strings else name.upper()
            if name in self.named.inputs:
                if self.sources:
                    continue
                words, paths = _split(value, self.named.words.get(name, 0))
                sources[label] = [source(path) for path in paths]
                if words:
                    settings[label] = words
            elif name in self.named.scorers:
                settings[label], sources[label] = _scorers(value)
            else:
                settings[label], defaults[label] = _plain(value), _plain(action.default)
        if self.sources:
            sources |= self.sources(args)
        self._refuse_inputs(args, sources)
        if self.settle:
            self.settle(args, settings)
        return Request(verb, settings, {label: found for label, found in sources.items() if found}, defaults)


def datasets(prefixes: Sequence[str | os.PathLike], partials: Sequence[Path] = ()) -> Output | None:
    """Indexed datasets with their sidecars; None of none."""
    names = [os.fspath(prefix) for prefix in prefixes]
    if not names:
        return None
    return Output(
        names[0],
        products=[Path(f"{name}.{suffix}") for name in names for suffix in _DATASET],
        records=[Path(f"{name}.json") for name in names],
        partials=partials,
        fault=dataset_fault,
    )


def folder(path: str | os.PathLike, record: str, products: Sequence[str] = (), partials: Sequence[str] = ()) -> Output:
    """A folder whose file ``record`` carries the request."""
    path = Path(path)
    return Output(
        str(path),
        products=[path / name for name in (record, *products)],
        records=[path / record],
        partials=[path / name for name in partials],
        clears=False,
        is_folder=True,
    )


def jsonl_with_sidecar(path: str | os.PathLike) -> Output:
    """FILE with FILE.json beside it, and FILE.partial until it is finished."""
    path = Path(path)
    sidecar, partial = (path.with_name(f"{path.name}.{suffix}") for suffix in ("json", "partial"))
    return Output(str(path), [path, sidecar], [sidecar], [partial], fault=_file_fault)


def page(path: Path) -> Output:
    """One HTML page."""
    return Output(str(path), [path], [path], read=request_of_page)


def dataset_fault(record: Path) -> str | None:
    """How the files of a dataset are not those that its sidecar describes; None where they are."""
    value = _record(record)
    prefix = str(record).removesuffix(".json")
    index, values = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    if not (index.is_file() and values.is_file()):
        return None
    if value.get("files") == file_states(index, values):
        return None
    if value.get("fingerprint") == _fingerprint(prefix):
        return None  # copied, or touched
    return f"{prefix} has changed since it was made"


def source(path: str | os.PathLike) -> Source:
    """A file, a folder or the prefix of a dataset, as a command reads it."""
    name = absolute_name(path)
    files = [Path(f"{name}.{suffix}") for suffix in ("idx", "bin")]
    if all(file.is_file() for file in files):
        return Source(name, _states(files), lambda: _dataset_hash(name))
    if Path(name).is_dir():
        inside = _files_of(Path(name))
        return Source(name, _states(inside), lambda: _folder_hash(Path(name), inside))
    if Path(name).is_file():
        return Source(name, _states([Path(name)]), lambda: hash_unchanged(name))
    found = local_files(name)
    if found is None:  # on the hub, where nobody says what has changed
        return Source(name, "hub", lambda: None)
    if found:
        return Source(name, _states([Path(file) for file in found]), lambda: input_hash(name))
    return Source(name, None, lambda: None)


def _split(value: Any, words: int) -> tuple[list[Any], list[str]]:
    """(words before the paths, paths) of an option's value: one path, a list, or a list of lists."""
    if value is None or value == []:
        return [], []
    if not isinstance(value, list):
        return [], [value]
    if isinstance(value[0], list):
        return [row[:words] for row in value if words], [path for row in value for path in row[words:]]
    return [], list(value)


def _scorers(value: Any) -> tuple[Any, list[Source]]:
    """Specs without the folders that they name, and those folders."""
    if value is None:
        return None, []
    specs, found = [], []
    for spec in value if isinstance(value, list) else [value]:
        kind, colon, rest = str(spec).partition(":")
        path, hash_sign, label = rest.partition("#")
        if kind == "python" and (file := source_of(rest)):
            found.append(source(file))
        if colon and path and Path(path).exists():
            found.append(source(path))
            spec = f"{kind}:{hash_sign}{label}"
        specs.append(spec)
    return (specs if isinstance(value, list) else specs[0]), found


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def _states(files: Sequence[Path]) -> str | None:
    """Sizes and times of ``files``; None of none."""
    found = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files if path.is_file()]
    return hash_value(found) if found else None


def _files_of(folder: Path) -> list[Path]:
    """Every file below, without hidden ones and locks."""

    def is_content(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        return path.is_file() and path.name != "lock" and not hidden

    return sorted(filter(is_content, folder.rglob("*")))


def _folder_hash(folder: Path, files: Sequence[Path]) -> str | None:
    try:
        return hash_value({str(path.relative_to(folder)): hash_unchanged(path) for path in files})
    except OSError:
        return None


def _dataset_hash(prefix: str) -> str | None:
    found = _fingerprint(prefix)
    return None if found is None else hash_value(found)


def _fingerprint(prefix: str) -> dict[str, Any] | None:
    try:
        return fingerprint(IndexedDataset.open(prefix))
    except (InputError, OSError):
        return None


def _file_fault(record: Path) -> str | None:
    file = Path(str(record).removesuffix(".json"))
    known = _record(record).get("hash")
    if known is None or not file.is_file() or hash_unchanged(file) == known:
        return None
    return f"{file} has changed since it was made"


def _record(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path, "record")
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}
