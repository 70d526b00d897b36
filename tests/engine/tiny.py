"""Tiny configurations, and the command line that trains on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SEQ_LENGTH = 16

MODEL: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "seq_length": SEQ_LENGTH,
    "max_position_embeddings": SEQ_LENGTH,
    "pos_emb": "rotary",
    "rotary_pct": 0.5,
    "gpt_j_residual": True,
    "no_weight_tying": True,
    "init_method": "small_init",
    "output_layer_init_method": "wang_init",
    "optimizer": {"type": "Adam", "params": {"lr": 0.01, "betas": [0.9, 0.95]}},
    "lr_decay_style": "cosine",
    "train_batch_size": 8,
    "train_iters": 6,
    "log_interval": 1,
    "eval_interval": 3,
    "eval_iters": 2,
    "seed": 7,
    "tokenizer_type": "CharLevelTokenizer",
}


def write_configuration(folder: Path, **values: Any) -> list[str]:
    """`folder`/model.yml and data.yml as on a user's disk; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {key: value for key, value in MODEL.items() if key not in values}
    (folder / "model.yml").write_text(json.dumps(model))
    (folder / "data.yml").write_text(json.dumps(values))
    return ["-d", str(folder), "model.yml", "data"]


def deepy(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python deepy.py train.py ...` as a user runs it."""
    command = [sys.executable, str(ROOT / "deepy.py"), str(ROOT / "train.py"), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def killed_after_a_checkpoint(arguments: list[str], cwd: Path, output: Path, timeout: float = 120.0) -> int:
    """SIGKILL `deepy`, launcher and workers, at whatever iteration they are once ``output`` has a checkpoint; the
    iteration of the last one."""
    command = [sys.executable, str(ROOT / "deepy.py"), str(ROOT / "train.py"), *arguments]
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + timeout
        while not (output / "latest").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    return int((output / "latest").read_text().removeprefix("global_step"))


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def losses(folder: Path, name: str = "lm_loss") -> list[float]:
    """The logged training losses of a run, one per iteration."""
    return [row[name] for row in read_log(folder) if "split" not in row]
