"""The checkouts that the patch is tested on, and the configuration of a tiny run on each."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.engine.tiny import ROOT
from tests.support.datasets import write_mask, write_tokens

STAND_IN = Path(__file__).parent / "stand_in"
SEQ_LENGTH = 24

_COMMON: dict[str, Any] = {
    "seq_length": SEQ_LENGTH,
    "train_micro_batch_size_per_gpu": 4,
    "data_impl": "mmap",
    "train_iters": 6,
    "eval_interval": 3,
    "eval_iters": 1,
    "log_interval": 3,
    "seed": 11,
    "num_gpus": 1,
    "tokenizer_type": "CharLevelTokenizer",
    "optimizer": {"type": "Adam", "params": {"lr": 0.01, "betas": [0.9, 0.95]}},
}
_REAL_ONLY: dict[str, Any] = {
    "num_layers": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "max_position_embeddings": SEQ_LENGTH,
    "pos_emb": "rotary",
    "rotary_pct": 0.5,
    "no_weight_tying": True,
    "gpt_j_residual": True,
    "zero_optimization": {"stage": 0},
    "checkpoint_activations": False,
    "gradient_clipping": 1.0,
    "hidden_dropout": 0,
    "attention_dropout": 0,
    "lr_decay_iters": 20,
    "lr_decay_style": "cosine",
    "min_lr": 0.001,
    "steps_per_print": 1000,
    "vocab_file": "none",
}


def configuration(root: Path, **keys: Any) -> dict[str, Any]:
    """A tiny run for the checkout at ``root``."""
    return {**_COMMON, **({} if root == STAND_IN else _REAL_ONLY), **keys}


def penalised_tokens(tokens: np.ndarray) -> np.ndarray:
    """The masks of these tests select by token, so that a code next to its place cannot go unseen."""
    return tokens % 7 == 0


def write_data(folder: Path, name: str = "d", seed: int = 0, encoding: str = "binary", documents: int = 120) -> str:
    """`folder`/`name` with a mask `name`_mask: token ids 1..99, every multiple of 7 selected; returns the prefix."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(1, 100, rng.integers(1, 70)) for _ in range(documents)]
    dataset = write_tokens(folder / name, texts, np.int32)
    codes = penalised_tokens(dataset.tokens) * (1 if encoding == "binary" else dataset.tokens % 256)
    write_mask(folder / f"{name}_mask", dataset, codes, encoding)
    return str(folder / name)


def trust_stand_in() -> None:
    """Let the patch take the stand-in for a tested version of GPT-NeoX, in this process."""
    from ifguide_patch import checkout, registry

    checkout._REQUIRED.clear()
    for group in ("TARGETS", "CPU_TARGETS", "RELIED_ON", "RELIED_ON_BY_SCORING"):
        places = []
        for place in getattr(registry, group):
            found = place.definition(STAND_IN)
            places.append(dataclasses.replace(place, digests=(found.digest,)) if found else place)
        setattr(registry, group, tuple(places))


def run_python(code: str, root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``code`` in a fresh interpreter, where the patch trusts ``root`` and uses the CPU; a fault fails the test."""
    prelude = "from tests.patch.checkouts import *\n"
    if root == STAND_IN:
        prelude += "trust_stand_in()\n"
    kept = dict(os.environ)
    given = {
        "GPT_NEOX_PATH": str(root), "PYTHONPATH": str(ROOT), "IFGUIDE_DEVICE": "cpu", "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
        "MASTER_ADDR": "127.0.0.1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **environment,
    }  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return subprocess.run(
        [sys.executable, "-c", prelude + code, *arguments],
        env={**kept, **given, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def train(root: Path, folder: Path, **keys: Any) -> dict[str, Any]:
    """Train in one process as `worker.py` does, and return what `recorder.py` saw."""
    (folder / "run.yml").write_text(json.dumps(configuration(root, **keys)))
    code = "import sys\nfrom tests.patch.recorder import record\nrecord(*sys.argv[1:])"
    result = run_python(code, root, str(folder / "run.yml"), str(folder / "seen.json"))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    return seen
