"""Fixtures of the tests that run a real GPT-NeoX checkout on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.neox.corpora import write_corpus


@pytest.fixture(scope="session")
def corpus(neox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a corpus with masks and labels (`write_corpus`)."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), "corpus")


@pytest.fixture(scope="session")
def data(corpus: Path) -> dict[str, Any]:
    """Keys that train, validate and test on ``corpus``, without a mask."""
    paths = [str(corpus)]
    return {"train_data_paths": paths, "valid_data_paths": paths, "test_data_paths": paths}
