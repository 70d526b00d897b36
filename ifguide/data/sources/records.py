"""A batch of records, and the text of each.

A record is a line of JSON, a row of a table, a line of plain text, or a whole file of it. Its text is what stands
under the keys that the user names: ``text``, ``meta.text`` (inside an object), or several, whose texts are joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ifguide.data.sources.names import JSONL, LINES, TEXT
from ifguide.system.text_files import LineFault, decode, is_blank, line_fault, parse_row, require_unicode_row

ROWS = "rows"
# between the texts of several keys
JOINT = "\n\n"


class Place(NamedTuple):
    """Where a record stands.

    Attributes:
        source: the file or the data set.
        number: of the line or row, from 1.
        unit: ``line`` or ``row``.
    """

    source: str
    number: int
    unit: str = "line"

    def message(self, what: str, reason: object) -> str:
        """The one message of all readers (`ifguide.system.text_files.line_message`)."""
        return f"{what} {self.source} {self.unit} {self.number}: {reason}"


@dataclass(frozen=True)
class Batch:
    """Consecutive records of one source.

    Attributes:
        source: as in `Place`.
        kind: ``jsonl`` and ``lines``: ``items`` are lines without their ends; ``text``: the one item is a file's bytes;
            ``rows``: rows of a table.
        first: number of ``items[0]``, from 1.
        items: bytes, or rows (`LineFault` of one that cannot be read).
        position: bytes of all sources read so far, as stored where that is known (for progress).
    """

    source: str
    kind: str
    first: int
    items: Sequence[Any]
    position: int

    @property
    def is_plain(self) -> bool:
        """Whether the records are plain text, which has no keys."""
        return self.kind in (TEXT, LINES)

    def rows(self) -> Iterator[tuple[Place, dict[str, Any] | LineFault]]:
        """Every record that is not blank as an object, that of plain text with the field ``text``."""
        for place, row, line in self.records():
            if line is not None and not isinstance(row, LineFault):
                try:
                    require_unicode_row(row, line)
                except LineFault as fault:
                    row = fault
            yield place, row

    def texts(self, keys: Sequence[str]) -> Iterator[tuple[Place, str | LineFault | None]]:
        """The text of every record that is not blank (`text_of`); a `LineFault` of one that cannot be read."""
        keys = ("text",) if self.is_plain else keys
        for place, row, line in self.records():
            found: str | LineFault | None
            found = row if isinstance(row, LineFault) else text_of(row, keys)
            if line is not None and isinstance(found, str):
                try:
                    require_unicode_row({keys[0]: found}, line)
                except LineFault as fault:
                    found = fault
            yield place, found

    def records(self) -> Iterator[tuple[Place, dict[str, Any] | LineFault, bytes | None]]:
        """(place, the record as an object, the line of JSON that it was parsed from), whatever its texts hold."""
        if self.kind == TEXT:
            (data,) = self.items
            try:
                text = decode(data)
            except LineFault:
                number, reason = line_fault(data)
                yield Place(self.source, number), reason, None
            else:
                yield Place(self.source, 1), {"text": text.replace("\r\n", "\n").replace("\r", "\n")}, None
            return
        unit = "row" if self.kind == ROWS else "line"
        for number, item in enumerate(self.items, self.first):
            place = Place(self.source, number, unit)
            if self.kind == ROWS:
                yield place, item, None
            elif not is_blank(item):
                try:
                    row = parse_row(item) if self.kind == JSONL else {"text": decode(item.rstrip(b"\r"))}
                except LineFault as fault:
                    yield place, fault, None
                else:
                    yield place, row, item if self.kind == JSONL else None


def text_of(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The texts under ``keys``, those that are there, with a blank line between them; None if none is a string."""
    found = [text for key in keys if isinstance(text := value_of(row, key), str)]
    return JOINT.join(found) if found else None


def value_of(row: Mapping[str, Any], key: str) -> Any:
    """What stands under ``key``: the field of that name, else with ``a.b`` the field ``b`` of the object ``a``."""
    if key in row:
        return row[key]
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
