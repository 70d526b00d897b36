"""Progress of long work, in one style everywhere: share, count, rate, time left, and what was kept.

On a terminal a bar redraws itself; elsewhere, as in a log file, a plain line is written every ten seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

_TERMINAL_INTERVAL = 0.2
_LOG_INTERVAL = 10.0
_SILENT = "IFGUIDE_QUIET"  # what a process inherits from one that was told --quiet


@contextmanager
def silenced(quiet: bool) -> Iterator[None]:
    """No progress of anything that begins meanwhile, in processes that are started too, where ``quiet``."""
    if not quiet or _SILENT in os.environ:
        yield
        return
    os.environ[_SILENT] = "1"
    try:
        yield
    finally:
        del os.environ[_SILENT]


class Progress:
    """Count work done and tell the rate and the time left on stderr.

    The base install has numpy and PyYAML only, so this takes no dependency. The rate is that of the work: the clock
    starts with the block, and from its second piece on the time until the first one, in which much is loaded and
    compiled, does not count.

    >>> with Progress(total=1000, unit="tokens", label="score") as progress:
    ...     progress.update(500)
    """

    def __init__(self, total: int | None, unit: str, label: str, done: int = 0, quiet: bool = False):
        """
        Args:
            total: units of all the work; None where nobody knows.
        """
        self.total, self.unit, self.label = total, unit, label
        self.done, self._resumed_at = done, done
        self._quiet = quiet or _SILENT in os.environ
        self._first: tuple[float, int] | None = None  # when the first piece was finished, and the work done by then
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def update(self, amount: int) -> None:
        """Add ``amount`` units of finished work."""
        self.done += amount
        now = time.monotonic()
        if self._first is None and self._worked > 0:
            self._first = now, self._worked
        if now - self._shown >= (_TERMINAL_INTERVAL if self._terminal else _LOG_INTERVAL):
            self._show(now)

    def skip(self, amount: int) -> None:
        """Add ``amount`` units that somebody else finished, or this command before: they are no part of the rate."""
        self._resumed_at += amount
        self.update(amount)

    @property
    def rate(self) -> float:
        """Units per second, not counting work that was resumed or skipped, nor loading."""
        now = time.monotonic()
        if self._first is not None:
            at, worked = self._first
            if self._worked > worked and now > at:
                return (self._worked - worked) / (now - at)
        return self._worked / max(now - self._started, 1e-9)

    @property
    def _worked(self) -> int:
        return self.done - self._resumed_at

    def _show(self, now: float, last: bool = False) -> None:
        self._shown = now
        if self._quiet:
            return
        rate = self.rate
        if last:
            tail = f"in {clock(now - self._started)}"
        elif self.total is None:
            tail = "ETA --"
        else:
            tail = f"ETA {clock((self.total - self.done) / rate)}" if rate > 0 else "ETA --"
        text = f"{self.label}: {self._share()} {self.unit}"
        text += f", {compact(rate)} {self.unit}/s, {tail}"
        if self._resumed_at:
            text += f", {compact(self._resumed_at)} kept"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[2K{text}" + ("\n" if last else ""))
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _share(self) -> str:
        """`` 45% 450k/1M``, or what is done alone where nobody knows of how much."""
        if self.total is None:
            return compact(self.done)
        share = self.done / self.total if self.total else 1.0
        return f"{share:4.0%} {compact(self.done)}/{compact(self.total)}"

    def __enter__(self) -> Progress:
        self._started = self._shown = time.monotonic()  # what was loaded since it was made is no part of the work
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._show(time.monotonic(), last=True)
        elif self._terminal and not self._quiet:
            sys.stderr.write("\n")


def compact(number: float) -> str:
    """1234567 -> '1.23M': three digits are enough to judge a rate."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}"


def counted(number: int, word: str) -> str:
    """``1 document``, ``1,234 documents``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """75 -> '1:15', 4000 -> '1:06:40'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
