"""``--log FILE``: what a command says, also kept in a file, each line with the time.

The streams are copied where Python writes them. What a native library or another process prints straight to the
terminal is not in the file.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ifguide.errors import InputError

# a bar redraws itself many times a second; the file gets one of these lines in so many seconds
_REDRAWN_SECONDS = 10.0
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class LogError(InputError):
    """The log cannot be written."""


class LogFile:
    """Lines with the time at which they were said."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._unfinished: dict[str, str] = {}
        self._redrawn = time.monotonic()

    def line(self, text: str) -> None:
        """One line; codes for the terminal are left out."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        self._stream.write(f"{stamp} {_CODES.sub('', text).rstrip()}\n")
        self._stream.flush()

    def take(self, text: str, source: str) -> None:
        """What was written to the stream ``source``: whole lines, each as it stood at last where it was redrawn."""
        waiting = self._unfinished.get(source, "") + text
        *lines, rest = waiting.split("\n")
        for line in lines:
            if shown := _last_drawn(line):
                self.line(shown)
        if "\r" in rest:
            rest = "\r" + _last_drawn(rest)
            if time.monotonic() - self._redrawn >= _REDRAWN_SECONDS:
                self._redrawn = time.monotonic()
                self.line(rest[1:])
        self._unfinished[source] = rest

    def finish(self) -> None:
        """Write what no line end followed."""
        for rest in self._unfinished.values():
            if shown := _last_drawn(rest):
                self.line(shown)
        self._unfinished = {}


class _Copied:
    """A stream whose text goes into a log too; all else is the stream's own."""

    def __init__(self, stream: Any, log: LogFile, name: str):
        self._stream, self._log, self._name = stream, log, name

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._log.take(text, self._name)
        return written

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def logged(path: str | os.PathLike | None, command: Sequence[str]) -> Iterator[LogFile | None]:
    """Append all that is said meanwhile to ``path``, after the command line; an exception too. Of several processes
    the first one writes. Nothing happens where ``path`` is None.

    Raises:
        LogError: the file cannot be written.
    """
    if path is None or os.environ.get("RANK", "0") != "0":
        yield None
        return
    try:
        stream = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed below
    except OSError as error:
        raise LogError(f"--log {Path(path)}: {error.strerror}") from None
    with stream:
        log = LogFile(stream)
        log.line(f"$ {shlex.join(command)}")
        before = sys.stdout, sys.stderr
        copies: list[Any] = [_Copied(one, log, name) for one, name in zip(before, ("out", "err"), strict=True)]
        sys.stdout, sys.stderr = copies
        try:
            yield log
        except BaseException:
            log.finish()
            for line in traceback.format_exc().splitlines():
                log.line(line)
            raise
        finally:
            log.finish()
            sys.stdout, sys.stderr = before


def _last_drawn(line: str) -> str:
    """What a terminal shows of a line that was drawn over itself."""
    return _CODES.sub("", line.rstrip("\r").rpartition("\r")[2])
