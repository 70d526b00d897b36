"""Fixtures: a tiny corpus with a planted mask, and training in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from tests.engine.tiny import MODEL
from tests.support.datasets import write_mask, write_tokens


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data` (bytes, documents of 5 to 40 tokens, each ended by 0) and its mask `mask` (the letter a)."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    documents = []
    for _ in range(120):
        letters = generator.integers(97, 105, size=generator.integers(4, 40))
        documents.append(np.append(letters, 0))
    tokens = write_tokens(folder / "data", documents, np.int32)
    write_mask(folder / "mask", tokens, tokens.tokens[:] == 97)
    write_mask(folder / "empty", tokens, np.zeros(tokens.num_tokens))
    return folder


@pytest.fixture
def train(process_group: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Train in this process, as one worker would: no launcher, no second import of everything."""
    from ifguide.engine import worker
    from ifguide.engine.arguments import TrainConfig
    from ifguide.engine.settings import resolve

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    # the process group is the session's; a run neither makes nor ends it
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)

    def run(**values: Any) -> int:
        argument = worker.encode_arguments(resolve(TrainConfig(**{**MODEL, **values})), ["test"], 0.0)
        return worker.main([argument])

    return run
