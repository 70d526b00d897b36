"""Keep libraries from printing over our own progress bars, and into our own results."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
