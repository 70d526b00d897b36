"""Keep libraries from printing over our own progress bars, and into our own results."""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

READER_LEFT = 141
"""Exit code of a command whose reader went away: 128 + SIGPIPE, as other commands end then."""


@contextmanager
def no_loading_bar() -> Iterator[None]:
    """Silence transformers' bar: loading takes a moment, the work afterwards has a bar of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def no_foreign_bars() -> Iterator[None]:
    """Silence the bars that libraries draw with tqdm, such as lm-eval's: the work has a bar of its own."""
    bar: Any = importlib.import_module("tqdm").tqdm
    original, begin = vars(bar)["__init__"], bar.__init__

    def without_drawing(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **{**options, "disable": True})

    bar.__init__ = without_drawing
    try:
        yield
    finally:
        bar.__init__ = original


def end_with_reader(run: Callable[[], int]) -> int:
    """``run()``; `READER_LEFT` where nobody reads what it prints any more, as with ``... | head -1``.

    A pipe that breaks between processes of our own stays an exception.
    """
    try:
        try:
            return run()
        finally:
            if sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()  # here, not when the interpreter ends
    except BrokenPipeError:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _reader_left(stream)]
        if not gone:
            raise
        # what is still buffered has to go somewhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in gone:
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return READER_LEFT


def _reader_left(stream: Any) -> bool:
    """Whether ``stream`` is a pipe whose other end is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # no file: a test's buffer, or closed
        return False


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what the process and its libraries say on stdout, which is for results, to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
