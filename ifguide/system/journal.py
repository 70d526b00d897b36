"""Finished pieces of a long evaluation, one JSON line each, so that a killed run continues where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from ifguide.errors import InputError, OutOfSpaceError
from ifguide.system.files import hash_value


class Journal:
    """An append-only JSONL file of keyed lines. A key holds all that can change its value: a line is never stale.

    Args:
        path: created when the first line is written; its folder must exist.

    Raises:
        InputError: the file cannot be read, or a line in the middle of it is no journal line.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lines: dict[str, dict[str, Any]] = {}
        whole = self._read()
        try:
            self._stream = open(self.path, "ab")  # noqa: SIM115 - open until `close`
            self._stream.truncate(whole)
        except OSError as error:
            raise InputError(f"journal {self.path}: {error.strerror}") from None

    def _read(self) -> int:
        """Length in bytes of what is whole: a kill can tear the last line, and only the last one."""
        if not self.path.exists():
            return 0
        whole = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                self._lines[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                raise InputError(f"journal {self.path} line {number} is damaged; delete that file and rerun") from None
            whole += len(line)
        return whole

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._lines[key]

    def __len__(self) -> int:
        return len(self._lines)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows, each with its ``key``; they are the system's when this returns.

        Raises:
            OutOfSpaceError: the disk refuses them.
        """
        rows = list(rows)
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        try:
            self._stream.write(text.encode("utf-8", "surrogatepass"))
            self._stream.flush()
        except OSError as error:
            raise OutOfSpaceError(f"journal {self.path}: {error.strerror}; free some room and rerun") from None
        self._lines |= {row["key"]: row for row in rows}

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def key_of(*parts: Any) -> str:
    """The key of a piece of work: a hash of everything that can change its value."""
    return hash_value(list(parts))
