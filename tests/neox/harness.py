"""Real GPT-NeoX runs on a CPU, cheap enough for tests: many tiny scenarios in one pair of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from ifguide.system.processes import free_port

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("scenario_worker.py")
SEQUENCE = 32
ITERATIONS = 20
TIME_LIMIT = 900

# Adam divides by sqrt(v) + eps: with a tiny eps, rounding noise in a gradient that is 0 in exact
# arithmetic (the key bias of attention) moves a weight by the whole learning rate
MODEL: dict[str, Any] = {
    "pipe_parallel_size": 0,
    "model_parallel_size": 1,
    "num_gpus": 2,
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": SEQUENCE,
    "max_position_embeddings": SEQUENCE,
    "norm": "layernorm",
    "pos_emb": "rotary",
    "rotary_pct": 0.5,
    "no_weight_tying": True,
    "gpt_j_residual": True,
    "output_layer_parallelism": "column",
    "init_method": "small_init",
    "output_layer_init_method": "wang_init",
    "hidden_dropout": 0,
    "attention_dropout": 0,
    "checkpoint_activations": False,
    "zero_optimization": {"stage": 0},
    "optimizer": {"type": "Adam", "params": {"lr": 0.002, "betas": [0.9, 0.95], "eps": 1e-5}},
    "min_lr": 0.0002,
    "weight_decay": 0.1,
    "gradient_clipping": 0.5,
    "lr_decay_style": "cosine",
    "lr_decay_iters": 30,
    "warmup": 0.1,
    "train_iters": ITERATIONS,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 1,
    "eval_interval": 1000,
    "eval_iters": 0,
    "log_interval": 1,
    "steps_per_print": 1000,
    "num_workers": 0,
    "data_impl": "mmap",
    "tokenizer_type": "CharLevelTokenizer",
    "vocab_file": "none",
    "make_vocab_size_divisible_by": 8,
}

# two processes each: two replicas, two slices, two stages
PLAIN = {"pipe_parallel_size": 0, "model_parallel_size": 1}
# with gpt_j_residual, NeoX adds the biases of both sublayers once on every slice
TENSOR = {
    "pipe_parallel_size": 0, "model_parallel_size": 2, "train_micro_batch_size_per_gpu": 4, "gpt_j_residual": False,
}  # fmt: skip
PIPE = {"pipe_parallel_size": 2, "model_parallel_size": 1, "train_micro_batch_size_per_gpu": 4}
LAYOUTS: dict[str, dict[str, Any]] = {"plain": PLAIN, "tp2": TENSOR, "pp2": PIPE}


@dataclass
class Scenario:
    """A run of NeoX: ``config`` is what its YAML file says."""

    name: str
    config: dict[str, Any]


@dataclass
class Outcome:
    """What a scenario left behind: one record per rank (see `scenario_worker`), and all that was printed."""

    config: dict[str, Any]
    ranks: list[dict[str, Any]]
    printed: str = field(repr=False, default="")

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self.ranks[0]["steps"]

    def printed_of(self, name: str) -> str:
        """What rank 0 printed while it ran the scenario ``name``."""
        return self.printed.partition(f"=== {name} ===")[2].partition("=== ")[0]

    def series(self, key: str) -> list[float]:
        """``key`` of each step, on rank 0; NaN where a step has none."""
        return [float(step.get(key, torch.nan)) for step in self.steps]

    def uncounted(self) -> set[str]:
        """Parameters that the norm for gradient clipping leaves out: DeepSpeed takes a later pipeline stage for
        another slice of the first, whose norms and biases are counted already."""
        if self.config["pipe_parallel_size"] < 2:
            return set()
        names = [set(rank["initial"]) for rank in self.ranks]
        return {name for name in set.union(*names) - names[0] if split_dimension(name) is None}

    def whole(self, when: str) -> dict[str, torch.Tensor]:
        """``initial`` or ``final`` parameters of the whole model: ranks put together again."""
        return merge_ranks([rank[when] for rank in self.ranks], self.config["model_parallel_size"])


def scenario(name: str, data: Mapping[str, Any], *overlays: Mapping[str, Any]) -> Scenario:
    """`MODEL` with ``data`` and ``overlays`` over it."""
    config = dict(MODEL)
    for overlay in (data, *overlays):
        config.update(overlay)
    return Scenario(name, config)


def merge_ranks(parts: Sequence[Mapping[str, torch.Tensor]], tensor_parallel: int) -> dict[str, torch.Tensor]:
    """Parameters of all ranks -> of the whole model, named by layer ("2.attention.dense.weight").

    Data-parallel ranks hold the same, pipeline stages other layers, tensor-parallel ranks slices.
    """
    whole: dict[str, torch.Tensor] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        short = name.removeprefix("sequential.")
        held = [part[name] for part in parts if name in part]
        dimension = split_dimension(short) if tensor_parallel > 1 else None
        whole[short] = held[0] if dimension is None else torch.cat(held, dimension)
    return whole


def split_dimension(name: str) -> int | None:
    """Along which dimension tensor parallelism cuts a parameter; None if every rank holds all of it."""
    if name.endswith(("dense.weight", "linear2.weight")):
        return 1
    columns = ("query_key_value", "linear1", "word_embeddings", "final_linear")
    return 0 if any(part in name for part in columns) else None


def run_scenarios(
    neox: Path, folder: Path, scenarios: Sequence[Scenario], patched: bool, processes: int = 2
) -> dict[str, Outcome]:
    """Run all ``scenarios`` one after the other in the same ``processes``; fails if one of them does.

    Results lie in ``folder``; so do the configurations and what was printed (``printed.RANK.txt``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = {"neox": str(neox), "out": str(folder), "patched": patched, "scenarios": []}
    for one in scenarios:
        yml = folder / f"{one.name}.yml"
        yml.write_text(yaml.safe_dump({**one.config, "num_gpus": processes}))
        plan["scenarios"].append({"name": one.name, "yml": str(yml), "config": one.config})
    (folder / "plan.json").write_text(json.dumps(plan))
    port = free_port()
    started = []
    for rank in range(processes):
        environment = environment_of(processes) | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "IFGUIDE_CPU_PROCESSES": str(processes),
        }  # fmt: skip
        output = (folder / f"printed.{rank}.txt").open("w")
        command = [sys.executable, str(WORKER), str(folder / "plan.json")]
        started.append(subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT))
    failed = wait_for_all(started)
    printed = [(folder / f"printed.{rank}.txt").read_text() for rank in range(processes)]
    if failed:
        raise AssertionError(f"the runs failed; the end of what the ranks printed:\n{ends(printed)}")
    return {
        one.name: Outcome(
            one.config,
            [torch.load(folder / f"{one.name}.{rank}.pt", weights_only=False) for rank in range(processes)],
            printed[0],
        )
        for one in scenarios
    }


def wait_for_all(started: Sequence[subprocess.Popen]) -> bool:
    """True if one failed, or took too long; the others are ended then, as they may wait for it for ever."""
    failed = False
    deadline = time.monotonic() + TIME_LIMIT
    try:
        while any(process.poll() is None for process in started) and time.monotonic() < deadline:
            for process in started:
                try:
                    process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
            if any(process.poll() not in (None, 0) for process in started):
                break
        failed = any(process.poll() != 0 for process in started)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    return failed


def environment_of(processes: int) -> dict[str, str]:
    """A clean environment for NeoX on a CPU."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("IFGUIDE_", "GPT_NEOX"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return kept | {
        "PATH": path, "IFGUIDE_DEVICE": "cpu", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def deepy(
    neox: Path, folder: Path, configs: Mapping[str, Mapping[str, Any]], *extra: str, script: str = "train.py"
) -> list[str]:
    """Write ``configs`` (name -> keys) as YAML files into ``folder``; the command that launches them."""
    for name, keys in configs.items():
        (folder / f"{name}.yml").write_text(yaml.safe_dump(dict(keys)))
    files = [f"{name}.yml" for name in configs]
    return [sys.executable, str(ROOT / "deepy.py"), script, *files, "--neox", str(neox), "--device", "cpu", *extra]


def ends(printed: Sequence[str], characters: int = 4000) -> str:
    return "\n".join(f"--- rank {rank} ---\n{text[-characters:]}" for rank, text in enumerate(printed))
