"""A finished tiny run with its data, queries and scores, and retraining without a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed

from ifguide import cli
from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.validation.margin import QuerySets
from ifguide.validation.run import FinishedRun, open_run
from tests.engine.tiny import MODEL, ROOT
from tests.support.folders import write_rows

WORDS = ("good cat", "bad dog", "the tree", "red hat", "my dear")


@dataclass(frozen=True)
class Case:
    """What `ifguide validate-scores` reads."""

    folder: Path

    @property
    def run(self) -> FinishedRun:
        return open_run(self.folder / "run")

    @property
    def tokens(self) -> TokenDataset:
        return TokenDataset.open(self.folder / "corpus_text_document")

    @property
    def query_files(self) -> tuple[Path, Path]:
        return self.folder / "toxic.jsonl", self.folder / "safe.jsonl"

    @property
    def queries(self) -> QuerySets:
        return QuerySets.load(*self.query_files, self.folder / "run/hf", self.tokens.prefix)

    def words(self, method: str, output: Path, *more: object) -> list[str]:
        toxic, safe = self.query_files
        return [
            "validate-scores", "--method", method, "--scores", str(self.folder / "scores"), "--run",
            str(self.folder / "run"), "--toxic-queries", str(toxic), "--safe-queries", str(safe), "--output",
            str(output), "--device", "cpu", *map(str, more),
        ]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _private() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DS_ACCELERATOR", "cpu")
        yield


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Made by the product's own commands; read by every test and changed by none."""
    folder = tmp_path_factory.mktemp("validated")
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, size=random.integers(2, 6))) for _ in range(90)]
    write_rows(folder / "corpus.jsonl", [{"text": text} for text in texts])
    write_rows(folder / "toxic.jsonl", [{"prompt": "the bad", "completion": f" {word}"} for word in ("dog", "hat")])
    write_rows(
        folder / "safe.jsonl",
        [{"prompt": "my", "completion": " dear"}, {"prompt": "a good", "completion": " cat", "weight": 2.0}],
    )
    words = ["preprocess", "--input", str(folder / "corpus.jsonl"), "--tokenizer-type", "CharLevelTokenizer"]
    assert cli.main([*words, "--output-prefix", str(folder / "corpus"), "--append-eod"]) == 0
    keys = MODEL | {
        "data_path": str(folder / "corpus_text_document"), "split": "90,10,0", "save": "run",
        "checkpoint_factor": 100, "min_lr": 0.001, "train_iters": 10, "eval_iters": 1,
    }  # fmt: skip
    (folder / "run.yml").write_text(json.dumps(keys))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "ifguide.launch", "train.py", str(folder / "run.yml")], cwd=folder, env=environment,
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    tokens = TokenDataset.open(folder / "corpus_text_document")
    for name, seed in (("scores", 1), ("other", 2)):
        values = np.random.default_rng(seed).standard_normal(tokens.num_tokens).astype(np.float32)
        write_aligned(folder / name, tokens, values, np.float32, {})
    write_aligned(folder / "mask", tokens, tokens.tokens[:] == ord("d"), np.uint8, {"encoding": "binary"})
    return Case(folder)


@pytest.fixture
def here(process_group: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Retrainings by the worker's code in this process; their names, as they are done."""
    from ifguide.engine import worker
    from ifguide.engine.settings import load_config
    from ifguide.validation import retraining

    done: list[str] = []
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)

    def train(command: Sequence[str], log: Path, name: str, threads: int) -> None:
        assert list(command[1:4]) == ["-m", "ifguide.launch", "train.py"] and threads == 1
        worker.train(load_config([command[4]]), list(command), 0.0)
        done.append(name)

    monkeypatch.setattr(retraining, "run_training", train)
    return done
