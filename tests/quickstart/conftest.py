"""Quickstart folders made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import quickstart_folders


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], tuple[Path, dict[str, Any]]]:
    """``make_folder(known)``: a fresh quickstart folder and its results."""

    def make(known: bool) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("quickstart")
        return folder, quickstart_folders.write_folder(folder, known)

    return make


@pytest.fixture(scope="session")
def planted_folder(make_folder: Callable) -> tuple[Path, dict[str, Any]]:
    """A folder that no test changes, with planted abuse."""
    return make_folder(True)
