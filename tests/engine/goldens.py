"""Tiny runs whose losses are recorded in goldens.json, and what records them: python -m tests.engine.goldens

Record again only when a run is meant to compute something else, and say in the commit what. The data are made of
integers by a rule, not drawn: they are the same whatever the version of a generator.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.engine.tiny import deepy, losses, read_log, write_configuration
from tests.support.datasets import write_mask, write_tokens

RECORD = Path(__file__).with_name("goldens.json")
PENALTY = {"penalty_data_path": "binary", "penalty_lambda": 0.3}

RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ascent": PENALTY,
    "clipped, graded, rising λ": {
        "penalty_data_path": "graded", "penalty_form": "clipped", "penalty_clip": 5.0, "penalty_lambda": 0.7,
        "penalty_warmup_iters": 4,
    },
    "unlikelihood": {"penalty_data_path": "binary", "penalty_form": "unlikelihood"},
    "accumulation": {**PENALTY, "train_micro_batch_size_per_gpu": 2},
    "ZeRO 2": {**PENALTY, "zero_optimization": {"stage": 2}},
    "two processes": {**PENALTY, "num_gpus": 2},
}  # fmt: skip


def write_data(folder: Path) -> None:
    """90 documents of 6 to 40 letters in ``folder``/data, with the masks binary and graded (the letter c)."""
    documents = []
    for number in range(90):
        length = 6 + number * 17 % 35
        # a quadratic rule: letters repeat in an order that can be learned
        documents.append(np.append(97 + (np.arange(length) ** 2 + number * 5) % 11, 0))
    tokens = write_tokens(folder / "data", documents)
    selected = tokens.tokens[:] == ord("c")
    write_mask(folder / "binary", tokens, selected)
    write_mask(folder / "graded", tokens, selected * (1 + np.arange(len(selected)) * 7 % 255), "graded")


def keys(data: Path, name: str, save: Path) -> dict[str, Any]:
    """The keys of run ``name`` beside those of `MODEL`."""
    given = {**RUNS[name], "data_path": str(data / "data"), "split": "80,10,10", "checkpoint_factor": 100}
    if "penalty_data_path" in given:
        given["penalty_data_path"] = str(data / given["penalty_data_path"])
    return {**given, "save": str(save)}


def told(save: Path) -> dict[str, list[float]]:
    """The losses of a finished run: of each iteration, and of validation and test at its end."""
    rows = read_log(save)
    names = [name for name in ("lm_loss", "penalty_ce", "objective", "grad_norm") if name in rows[0]]
    return {
        **{name: losses(save, name) for name in names},
        "held out": [row["lm_loss"] for row in rows if "split" in row],
    }


def record() -> None:
    recorded = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder)
        for name in RUNS:
            done = deepy(write_configuration(folder / name, **keys(folder, name, folder / name / "out")), folder)
            assert done.returncode == 0, done.stderr
            recorded[name] = told(folder / name / "out")
    RECORD.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
