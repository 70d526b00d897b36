"""What a penalty costs a GPT-NeoX run: samples through its loader, and one training step.

Both are measured on a real checkout, patched, in one process that alternates between the penalised and
the stock path, so that a machine that slows down slows both.

    python benchmarks/neox_overhead.py --neox ~/gpt-neox --device cpu

Goals: loader >= 0.95 of the stock samples/s; penalised step <= 1.02 of the stock step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import Timing, report, time_alternating
from ifguide.system.quiet import stdout_to_stderr

_MODEL: dict[str, Any] = {
    "num_layers": 8, "hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 2048,
    "pos_emb": "rotary", "rotary_pct": 0.25, "no_weight_tying": True, "gpt_j_residual": True,
    "optimizer": {"type": "Adam", "params": {"lr": 0.0006, "betas": [0.9, 0.95]}}, "zero_optimization": {"stage": 0},
    "train_iters": 4000, "lr_decay_iters": 4000, "lr_decay_style": "cosine", "min_lr": 0.0001, "data_impl": "mmap",
    "checkpoint_activations": False, "hidden_dropout": 0, "attention_dropout": 0, "gradient_clipping": 1.0,
    "steps_per_print": 100000, "log_interval": 1000, "eval_interval": 100000, "eval_iters": 1, "num_gpus": 1,
    "tokenizer_type": "CharLevelTokenizer", "vocab_file": "none",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neox", default=os.environ.get("GPT_NEOX_PATH"), help="GPT-NeoX checkout")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cpu: without CUDA")
    parser.add_argument("--tokens", type=int, default=20_000_000, help="tokens of the synthetic dataset")
    parser.add_argument("--batches", type=int, default=400, help="batches per timing of the loader")
    parser.add_argument("--step-seq-length", type=int, default=512, help="sequence length of the timed step")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", help="also write the JSON here")
    arguments = parser.parse_args()
    if not arguments.neox:
        parser.error("--neox (or GPT_NEOX_PATH) must name a checkout")
    _environment(arguments.neox, arguments.device)
    from ifguide_patch import apply, checkout

    with tempfile.TemporaryDirectory() as folder, stdout_to_stderr():
        root = apply()
        prefix = _write_data(Path(folder), arguments.tokens)
        results = {"versions_of_the_run": checkout.versions(root), "loader": {}}
        for workers in (0, 2):
            config = _config(folder, prefix, 2048, num_workers=workers)
            if workers == 0:
                _start(config)
            results["loader"][f"{workers} workers"] = _loader(config, arguments.batches, arguments.repeats)
        results["step"] = _step(_config(folder, prefix, arguments.step_seq_length, num_workers=0), arguments.repeats)
    report("neox_overhead", results, arguments.output)


def _environment(neox: str, device: str | None) -> None:
    """One process, as the launcher would start it."""
    from ifguide.system.processes import free_port

    os.environ |= {"GPT_NEOX_PATH": neox, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if device == "cpu":
        from ifguide_patch import cpu

        cpu.set_environment()


def _write_data(folder: Path, num_tokens: int) -> str:
    """Documents of log-normal length (median 400 tokens, as web text has) and a mask of 2 % of the tokens."""
    from ifguide.data.aligned import write_aligned
    from ifguide.data.indexed import TokenDataset, write_index

    rng = np.random.default_rng(0)
    lengths = np.maximum(8, rng.lognormal(np.log(400), 1.0, num_tokens // 500)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    prefix = str(folder / "data")
    rng.integers(1, 256, starts[-1]).astype(np.uint16).tofile(f"{prefix}.bin")
    write_index(f"{prefix}.idx", np.uint16, lengths, starts, np.arange(len(lengths) + 1))
    tokens = TokenDataset.open(prefix)
    mask = (rng.random(starts[-1]) < 0.02).astype(np.uint8)
    write_aligned(f"{prefix}_mask", tokens, mask, np.uint8, {"encoding": "binary"})
    return prefix


def _config(folder: str, prefix: str, seq_length: int, **keys: Any) -> Any:
    """NeoXArgs of a penalised run."""
    from megatron.neox_arguments import NeoXArgs

    config = {
        **_MODEL, **keys, "seq_length": seq_length, "train_micro_batch_size_per_gpu": 4,
        "train_data_paths": [prefix], "valid_data_paths": [prefix], "test_data_paths": [prefix],
        "train_penalty_data_paths": [f"{prefix}_mask"], "penalty_lambda": 1.0,
    }  # fmt: skip
    path = Path(folder) / "run.yml"
    path.write_text(json.dumps(config))
    arguments = NeoXArgs.from_ymls([str(path)])
    arguments.configure_distributed_args()
    arguments.build_tokenizer()
    return arguments


def _start(config: Any) -> None:
    from megatron import training

    training.initialize_megatron(neox_args=config)


def _loader(config: Any, batches: int, repeats: int) -> dict[str, Any]:
    """Samples/s of NeoX's own loader over a dataset with a mask, and over the same without one."""
    masked, stock = _loaders(config)

    def drain(loader: Any) -> None:
        for _ in itertools.islice(loader, batches):
            pass

    times = time_alternating({"penalised": lambda: drain(masked), "stock": lambda: drain(stock)}, repeats)
    samples = batches * config.train_micro_batch_size_per_gpu
    return {
        "samples_per_second": {name: round(samples / time.median, 1) for name, time in times.items()},
        "penalised_to_stock": round(times["stock"].median / times["penalised"].median, 4),
        "seq_length": config.seq_length,
    }


def _loaders(config: Any) -> tuple[Any, Any]:
    from megatron.data.data_utils import build_train_valid_test_data_loaders

    masked = build_train_valid_test_data_loaders(config)["train"]
    masks, config.train_penalty_data_paths = config.train_penalty_data_paths, None
    stock = build_train_valid_test_data_loaders(config)["train"]
    config.train_penalty_data_paths = masks
    return masked, stock


def _step(config: Any, repeats: int) -> dict[str, Any]:
    """Seconds of ``train_step`` with penalties and, on the same model, without."""
    import torch
    from megatron import training
    from megatron.utils import Timers

    masked, stock = _loaders(config)
    iterators = {"penalised": itertools.cycle(masked), "stock": itertools.cycle(stock)}
    model, optimizer, scheduler, _ = training.setup_model_and_optimizer(neox_args=config)
    timers = Timers(use_wandb=False, tensorboard_writer=None, comet_experiment=None)
    masks = config.train_penalty_data_paths

    def step(name: str) -> None:
        config.train_penalty_data_paths = masks if name == "penalised" else None
        training.train_step(
            neox_args=config, timers=timers, data_iterator=iterators[name], model=model, optimizer=optimizer,
            lr_scheduler=scheduler,
        )  # fmt: skip
        torch.cuda.synchronize()

    model.train()
    times: dict[str, Timing] = time_alternating({name: lambda name=name: step(name) for name in iterators}, repeats)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": config.train_micro_batch_size_per_gpu * config.seq_length,
        "seconds": {name: time.as_dict() for name, time in times.items()},
        "penalised_to_stock": round(times["penalised"].median / times["stock"].median, 4),
    }


if __name__ == "__main__":
    main()
