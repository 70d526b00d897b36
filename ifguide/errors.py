"""Every exception that this package raises on purpose.

A command ends with exit code 2 and one line for each of these, and with a traceback for anything
else: a traceback is a defect of ours, never the answer to bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


class IFGuideError(Exception):
    """Base class: the message is a complete sentence for the person who ran the command."""


class InputError(IFGuideError):
    """Something given to us cannot be used: says what is wrong, where, and what to do."""


class ConfigError(InputError):
    """A configuration has faults; all of them are reported at once.

    Attributes:
        faults: one complete line each.
    """

    def __init__(self, faults: Iterable[str]):
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


def first_faults(faults: Sequence[str], most: int = 20) -> list[str]:
    """As many of ``faults`` as a reader takes in, and the number of the others."""
    more = len(faults) - most
    return [*faults[:most], *([f"... and {more} more faults"] if more > 0 else [])]


class MismatchError(InputError):
    """Two files that must describe the same data do not; the message says what differs."""


class NumericsError(IFGuideError):
    """A NaN or an infinity where a finite number must be; names the tensor and the document."""


class OutOfSpaceError(IFGuideError):
    """A disk is full; the message names the path, and what was there before is still there."""


class IFGuideWarning(UserWarning):
    """Something odd that was read and can be used; the command line shows it as one line."""


def first_line(error: BaseException) -> str:
    """What an exception of a library says, of several lines the first; its type where it says nothing."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def tell(speaker: str, error: IFGuideError | str) -> None:
    """Print a fault on stderr, each of its lines with the name of the command that speaks."""
    for line in str(error).splitlines():
        print(f"{speaker}: {line}", file=sys.stderr, flush=True)
