"""One process of a training run, started by the launcher with the checked configuration."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ifguide.engine.arguments import TrainConfig, batch_sizes
from ifguide.errors import IFGuideError, InputError, tell
from ifguide.penalties.announcement import announcement
from ifguide.system.processes import spare_compilation

_OPTION = "--ifguide_config="


def encode_arguments(config: TrainConfig, command: Sequence[str], started: float) -> str:
    """The one argument that hands the configuration to a worker.

    Args:
        command: what the user ran, for the run record.
        started: time.time() when they ran it, for the start-up time in the run record.
    """
    payload = {"config": asdict(config), "command": list(command), "started": started}
    return _OPTION + base64.urlsafe_b64encode(json.dumps(payload).encode()).decode()


def main(argv: Sequence[str]) -> int:
    """Train; returns the exit code. Only the first process speaks of a fault that all have."""
    given = next((argument[len(_OPTION) :] for argument in argv if argument.startswith(_OPTION)), None)
    if given is None:
        print(
            "train.py is started by deepy.py: python deepy.py train.py -d configs model.yml data.yml", file=sys.stderr
        )
        return 2
    payload = json.loads(base64.urlsafe_b64decode(given))
    try:
        train(TrainConfig(**payload["config"]), payload["command"], payload["started"])
    except IFGuideError as error:
        if os.environ.get("RANK", "0") == "0" or not isinstance(error, InputError):
            tell("train", error)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def train(config: TrainConfig, command: list[str], started: float) -> None:
    """Train as the process that ``RANK`` and its kin in the environment say; arguments as for `encode_arguments`."""
    import torch

    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.engine.checkpoint import load_checkpoint, load_export, loads_huggingface
    from ifguide.engine.datasets import iterations_of_epochs, open_corpus, pack
    from ifguide.engine.deepspeed_engine import build_engine
    from ifguide.engine.model import build_model
    from ifguide.engine.train_log import TrainingLog
    from ifguide.engine.training import Trainer
    from ifguide.objectives.registry import build_objective
    from ifguide.system.allocator import keep_freed_memory

    keep_freed_memory()
    tokenizer = build_tokenizer(config.tokenizer_type, config.vocab_file, config.merge_file)
    corpus = open_corpus(config, tokenizer)
    from_export = loads_huggingface(config)
    _join_processes()
    rank = torch.distributed.get_rank()
    batch, *_ = batch_sizes(
        config.world_size,
        config.train_batch_size,
        config.train_micro_batch_size_per_gpu,
        config.gradient_accumulation_steps,
    )
    train_iters = config.train_iters or iterations_of_epochs(config, corpus, batch)
    assert config.seq_length
    order = {
        "seed": config.seed,
        "seq_length": config.seq_length,
        "train_batch_size": batch,
        "train_samples": train_iters * batch,
    }
    data = pack(config, corpus, tokenizer, train_iters * batch, config.eval_iters * batch)
    model = build_model(config, tokenizer.vocab_size, tokenizer.eod)
    notes = load_export(model, config) if from_export else []
    engine = build_engine(model, config)
    finished = 0
    if config.load and not from_export:
        finished, notes = load_checkpoint(engine, config, order)
    if config.save and rank == 0:
        _prepare_folder(Path(config.save))
    log = TrainingLog(config, train_iters, finished + 1, writes=rank == 0)
    record: dict[str, Any] = {
        "command": command,
        "engine": "embedded",
        "config": asdict(config),
        "seed": config.seed,
        "train_iters": train_iters,
        "train_tokens": train_iters * batch * config.seq_length,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": {"size": tokenizer.vocab_size, "padded": model.config.vocab_size},
        "tokenizer": tokenizer.identity,
        "inputs": corpus.identity(),
        "startup_seconds": round(time.time() - started, 2),
    }
    for note in notes:
        log.say(note)
    log.say(
        f"{record['parameters'] / 1e6:.2f} M parameters, {train_iters} iterations of {batch} x {config.seq_length} "
        f"tokens on {config.world_size} process(es); ready after {record['startup_seconds']:.1f} s"
    )
    if rank == 0:  # a mask without a count in its sidecar is read once
        for line in announcement(vars(config)):
            log.say(line)
    _write_record(config, rank, record, started)
    trainer = Trainer(
        engine, config, data, tokenizer, log, train_iters=train_iters,
        objective=build_objective(config, penalised=bool(corpus.penalties)), order=order,
    )  # fmt: skip
    begun = time.monotonic()
    trainer.run(finished + 1)
    log.say(_where_the_model_is(config))
    log.close()
    _write_record(config, rank, {**record, "training_seconds": round(time.monotonic() - begun, 2)}, started)
    torch.distributed.destroy_process_group()


def _where_the_model_is(config: TrainConfig) -> str:
    if not config.save:
        return "nothing was kept: the configuration names no folder to save into"
    return f"model: {Path(config.save) / 'hf'} (Hugging Face folder); to continue it: load {config.save}"


def _join_processes() -> None:
    """Meet the other processes of the run; one GPU each, or gloo on a CPU."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator.device_name() != "cpu":
        accelerator.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = accelerator.communication_backend_name()
    else:
        backend = "gloo"
        spare_compilation()
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"save: {folder} cannot be made: {error.strerror}") from None


def _write_record(config: TrainConfig, rank: int, record: dict[str, Any], started: float) -> None:
    if config.save and rank == 0:
        from ifguide.system.provenance import write_run_record

        write_run_record(config.save, began=started, **record)
