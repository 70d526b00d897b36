"""What the name of an input means.

``FILE``            a file, by the end of its name: JSON lines, plain text or Parquet; text may be compressed
``a/*.jsonl.zst``   every file that fits the pattern, sorted; ``**`` goes into folders
``FOLDER``          every file below it that is read, sorted by its path inside; hidden ones are left out
``dataset:NAME[:CONFIG][#SPLIT]``   a data set of the package `datasets`: a folder, else a name on the Hugging Face hub
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifguide.errors import InputError
from ifguide.system.files import hash_unchanged, hash_value
from ifguide.system.text_files import BOM, LineFault, parse_row, unreadable

DATASET = "dataset:"
AUTO, JSONL, TEXT, LINES, PARQUET = "auto", "jsonl", "text", "lines", "parquet"
FORMATS = (AUTO, JSONL, TEXT, LINES, PARQUET)
COMPRESSIONS = {".gz": "gzip data", ".zst": "zstandard data", ".bz2": "bzip2 data", ".xz": "xz data"}
_ENDINGS = {".jsonl": JSONL, ".ndjson": JSONL, ".json": JSONL, ".txt": TEXT, ".text": TEXT, ".parquet": PARQUET}
# a kind of sources beside `FORMATS`: a data set of the package `datasets`
DATA_SET = "dataset"
_SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` of datasets leaves
# a first line that is longer than this is taken for text
_FIRST_LINE = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file, or a split of a data set.

    Attributes:
        name: the path, or ``dataset:...`` as given.
        kind: ``jsonl``, ``text`` (a document a file), ``lines`` (a document a line), ``parquet`` or ``dataset``.
        size: bytes as stored; None where nobody knows.
    """

    name: str
    kind: str
    size: int | None


@dataclass(frozen=True)
class DatasetName:
    """``dataset:NAME[:CONFIG][#SPLIT]`` taken apart.

    Attributes:
        path: a folder, or a name on the hub.
        config, split: None where they are not named.
    """

    path: str
    config: str | None
    split: str | None

    @property
    def is_folder(self) -> bool:
        return Path(self.path).is_dir()


def parse_dataset(name: str) -> DatasetName:
    """The parts of ``dataset:NAME[:CONFIG][#SPLIT]``; a folder's name may hold colons.

    Raises:
        InputError: it names nothing, or a folder that does not exist.
    """
    rest, _, split = name.removeprefix(DATASET).partition("#")
    path, _, config = (rest, "", "") if Path(rest).is_dir() else rest.partition(":")
    if not path:
        raise InputError(f"{name} names no data set; write dataset:FOLDER#SPLIT or dataset:NAME#SPLIT")
    if path.startswith(("/", ".", "~")) and not Path(path).is_dir():
        raise InputError(f"{name}: folder {path} does not exist")
    return DatasetName(path, config or None, split or None)


def find_sources(names: Iterable[str | os.PathLike], form: str = AUTO, what: str = "input") -> list[Source]:
    """Everything that ``names`` name, in order; each is there and can be opened.

    Args:
        form: one of `FORMATS`, of all files; ``auto`` goes by their names.
        what: their role, for messages.

    Raises:
        InputError: the first that is missing, unreadable, or names nothing that is read.
    """
    if form not in FORMATS:
        raise InputError(f"--format {form}: must be one of {', '.join(FORMATS)}")
    found = []
    for one in names:
        name = os.fspath(one)
        if name.startswith(DATASET):
            found.append(Source(name, DATA_SET, _folder_size(parse_dataset(name))))
        else:
            found += [_file(path, form, what) for path in _files(name, form, what)]
    return found


def local_files(name: str | os.PathLike) -> list[str] | None:
    """The files behind a name that are there, for records of what was read; None of a data set on the hub."""
    name = os.fspath(name)
    if not name.startswith(DATASET):
        try:
            return [path for path in _files(name, AUTO, "input") if Path(path).is_file()]
        except InputError:
            return []
    try:
        spec = parse_dataset(name)
    except InputError:
        return []
    return list(_walk(spec.path)) if spec.is_folder else None


def absolute_name(name: str | os.PathLike, folder: str | os.PathLike = ".") -> str:
    """``name``, a path in it counted from ``folder``, as it is understood everywhere."""
    name = os.fspath(name)
    if not name.startswith(DATASET):
        return os.path.abspath(os.path.join(folder, name))  # noqa: PTH100, PTH118 (Path.resolve would follow links)
    rest, sign, split = name.removeprefix(DATASET).partition("#")
    path = os.path.join(folder, rest)  # noqa: PTH118
    if not Path(path).is_dir():
        return name
    return f"{DATASET}{os.path.abspath(path)}{sign}{split}"  # noqa: PTH100


def is_plain_file(name: str | os.PathLike) -> bool:
    """Whether ``name`` is that of one file."""
    return not os.fspath(name).startswith(DATASET) and Path(name).is_file()


def input_hash(name: str | os.PathLike) -> str | None:
    """A hash of all bytes that ``name`` names: of one file its own; None of a data set on the hub."""
    if is_plain_file(name):
        return hash_unchanged(name)
    files = local_files(name)
    return None if files is None else hash_value([hash_unchanged(path) for path in files])


def input_record(name: str | os.PathLike) -> dict[str, str | int | None]:
    """`ifguide.system.provenance.file_record`, of whatever ``name`` names: ``path``, ``bytes`` as stored, ``hash``."""
    files = local_files(name)
    size = None if files is None else sum(Path(path).stat().st_size for path in files)
    return {"path": absolute_name(name), "bytes": size, "hash": input_hash(name)}


def is_saved(folder: str | os.PathLike) -> bool:
    """Whether ``folder`` is a data set that `save_to_disk` of the package `datasets` wrote."""
    return any((Path(folder) / name).is_file() for name in _SAVED)


def compression_of(path: str) -> str | None:
    """The end of the name if it says that the file is compressed."""
    suffix = Path(path).suffix
    return suffix if suffix in COMPRESSIONS else None


def is_json_line(head: bytes) -> bool:
    """Whether the first line of a text that begins with ``head`` is a JSON object."""
    line = head.removeprefix(BOM).lstrip().split(b"\n", 1)[0]
    if not line.startswith(b"{"):
        return False
    try:
        parse_row(line)
    except LineFault:
        return False
    return True


def _ending(path: str) -> str:
    name = Path(path)
    return Path(name.stem).suffix if compression_of(path) else name.suffix


def _files(name: str, form: str, what: str) -> Sequence[str]:
    if Path(name).is_file():
        return [name]
    if Path(name).is_dir():
        return _in_folder(name, form, what)
    if glob.has_magic(name):
        found = [path for path in glob.glob(name, recursive=True) if Path(path).is_file()]  # noqa: PTH207
        if not found:
            raise InputError(f"{what} {name}: no file fits this pattern")
        return sorted(found, key=lambda path: Path(path).parts)
    raise InputError(f"{what} {name} does not exist or is not a file")


def _in_folder(folder: str, form: str, what: str) -> Sequence[str]:
    if is_saved(folder):
        raise InputError(f"{what} {folder} is a data set that `datasets` saved; write {DATASET}{folder}")
    every = list(_walk(folder))
    found = [path for path in every if form != AUTO or _ending(path) in _ENDINGS]
    if not found:
        raise InputError(
            f"{what} {folder}: no file below it is read ({len(every)} of other kinds); files end in "
            f"{', '.join(_ENDINGS)}, maybe with {', '.join(COMPRESSIONS)}, or name their kind with --format"
        )
    return found


def _walk(folder: str) -> Iterator[str]:
    """Every file below that is not hidden, sorted by its parts."""
    inside = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside += [Path(place, name) for name in files if not name.startswith(".")]
    yield from (str(path) for path in sorted(inside, key=lambda path: path.relative_to(folder).parts))


def _file(path: str, form: str, what: str) -> Source:
    """A name of another kind says JSON lines; so does a first line that is a JSON object in a file that is named as
    plain text, which is what such files were to earlier versions."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            kind = _ENDINGS.get(_ending(path), JSONL) if form == AUTO else form
            is_named = kind == TEXT and form == AUTO and compression_of(path) is None
            if is_named and is_json_line(stream.read(_FIRST_LINE)):
                kind = JSONL
    except OSError as error:
        raise InputError(unreadable(error, path, what)) from None
    return Source(path, kind, size)


def _folder_size(spec: DatasetName) -> int | None:
    return sum(Path(path).stat().st_size for path in _walk(spec.path)) if spec.is_folder else None
