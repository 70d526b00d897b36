"""Progress of long work: a bar with rate and ETA on a terminal, sparse plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_TERMINAL_INTERVAL = 0.2
_LOG_INTERVAL = 10.0


class Progress:
    """Count work done and tell the rate and the time left on stderr.

    The base install has numpy and PyYAML only, so this takes no dependency. A bar redraws itself on
    a terminal; in a log file one line is written every ten seconds.

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
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def update(self, amount: int) -> None:
        """Add ``amount`` units of finished work."""
        self.done += amount
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_INTERVAL if self._terminal else _LOG_INTERVAL):
            self._show(now)

    def skip(self, amount: int) -> None:
        """Add ``amount`` units that somebody else finished, or this command before: they are no part of the rate."""
        self._resumed_at += amount
        self.update(amount)

    @property
    def rate(self) -> float:
        """Units per second since the start, not counting work that was resumed or skipped."""
        return (self.done - self._resumed_at) / max(time.monotonic() - self._started, 1e-9)

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


def clock(seconds: float) -> str:
    """75 -> '1:15', 4000 -> '1:06:40'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
