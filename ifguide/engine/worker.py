"""One process of a training run, started by the launcher with the checked configuration."""

from __future__ import annotations

import base64
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifguide.compat.deepspeed import spare_compilation
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.settings import TrainSettings, resolve
from ifguide.errors import IFGuideError, InputError, tell
from ifguide.penalties.announcement import announcement
from ifguide.system.progress import counted
from ifguide.system.run_process import this_process

if TYPE_CHECKING:
    from ifguide.data.text.tokenizers import Tokenizer
    from ifguide.engine.datasets import TrainingData
    from ifguide.engine.pairs.reading import Pairs
    from ifguide.objectives.base import Objective

_OPTION = "--ifguide_config="


def encode_arguments(settings: TrainSettings, command: Sequence[str], started: float) -> str:
    """The one argument that hands the configuration to a worker, as the YAML files gave it.

    Args:
        command: what the user ran, for the run record.
        started: time.time() when they ran it, for the start-up time in the run record.
    """
    payload = {"config": asdict(settings.keys), "command": list(command), "started": started}
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
        train(resolve(TrainConfig(**payload["config"])), payload["command"], payload["started"])
    except IFGuideError as error:
        if this_process().leads or not isinstance(error, InputError):
            tell("train", error)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def train(settings: TrainSettings, command: list[str], started: float) -> None:
    """Train as the process that the environment says this is; arguments as for `encode_arguments`."""
    import torch

    from ifguide.engine.checkpoint import load_checkpoint
    from ifguide.engine.datasets import pack
    from ifguide.engine.deepspeed_engine import build_engine
    from ifguide.engine.model import build_model, load_huggingface_weights, never_generate
    from ifguide.engine.pairs.preparation import start_objective
    from ifguide.engine.train_log import TrainingLog
    from ifguide.engine.training import Trainer
    from ifguide.models.adapters import add_adapters
    from ifguide.system.processes import keep_freed_memory

    keep_freed_memory()
    ready = _prepare(settings)
    tokenizer, data, objective, pairs = ready.tokenizer, ready.data, ready.objective, ready.pairs
    train_iters, hidden = ready.iterations, ready.hidden
    join_processes()
    leads = this_process().leads
    order = {
        "seed": settings.seed,
        "seq_length": settings.seq_length,
        "train_batch_size": settings.batch,
        "train_samples": train_iters * settings.batch,
    }
    packed = pack(settings, data, tokenizer, train_iters * settings.batch, settings.eval_iters * settings.batch, hidden)
    model = build_model(settings, tokenizer.vocab_size, tokenizer.eod)
    notes, finished = [], 0
    kept: dict[str, Any] = {}
    if settings.load and ready.from_export:
        load_huggingface_weights(model, settings.load)
        notes = [f"weights of {settings.load}, starting at iteration 0"]
    if hidden is not None:
        never_generate(model, [hidden])
    if settings.keys.lora_rank:
        keys = settings.keys
        model = add_adapters(model, keys.lora_rank, keys.lora_alpha, keys.lora_dropout, settings.seed)
    for name, parameter in model.named_parameters():
        if not objective.trains(name, settings.num_layers):
            parameter.requires_grad_(False)
    engine = build_engine(model, settings)
    if settings.load and not ready.from_export:
        finished, notes, kept = load_checkpoint(engine, Path(settings.load), settings.finetune, order, objective.name)
    if settings.save and leads:
        _prepare_folder(Path(settings.save))
    log = TrainingLog(settings, train_iters, finished + 1, writes=leads)
    record: dict[str, Any] = {
        "command": command,
        "engine": "embedded",
        "config": asdict(settings.keys),
        "seed": settings.seed,
        "train_iters": train_iters,
        "train_tokens": train_iters * settings.batch * settings.seq_length,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": {"size": tokenizer.vocab_size, "padded": model.config.vocab_size},
        "tokenizer": tokenizer.vocabulary_fingerprint,
        "inputs": data.fingerprints() | ({} if pairs is None else {"pairs": {pairs.path: pairs.file_hash}}),
        "startup_seconds": round(time.time() - started, 2),
    }
    for note in notes:
        log.say(note)
    log.say(
        f"{record['parameters'] / 1e6:.2f} M parameters, {train_iters} iterations of {settings.batch} x "
        f"{settings.seq_length} tokens on {settings.world_size} process{'' if settings.world_size == 1 else 'es'}; "
        f"ready after {record['startup_seconds']:.1f} s"
    )
    if leads:  # a mask without a count in its sidecar is read once
        for line in _announcement(settings, ready):
            log.say(line)
    record_in = settings.save if leads else None
    _write_record(record_in, record, started)
    start_objective(objective, engine, settings, data, pairs, tokenizer, train_iters, finished)
    if kept:
        objective.restore(kept)
    trainer = Trainer(
        engine, settings, packed, tokenizer, log, train_iters=train_iters, objective=objective, order=order,
        pairs=pairs,
    )  # fmt: skip
    begun = time.monotonic()
    trainer.run(finished + 1)
    for line in _where_the_model_is(settings.save):
        log.say(line)
    log.close()
    _write_record(record_in, {**record, "training_seconds": round(time.monotonic() - begun, 2)}, started)
    torch.distributed.destroy_process_group()


def dry_run(settings: TrainSettings) -> Iterator[str]:
    """All that a run checks before it trains, without training; yields lines that say what would be trained on what.

    Raises:
        InputError: what the run would stop at: data that cannot be read, a mask or a tokenizer of other tokens, pairs
            with faults, less text than one batch.
    """
    ready = _prepare(settings)
    yield (
        f"{ready.iterations} iterations of {settings.batch} x {settings.seq_length} tokens on {settings.world_size} "
        f"process(es), {sum(dataset.num_tokens for dataset in ready.data.tokens.values()):,} tokens of text"
    )
    yield from _announcement(settings, ready)


@dataclass(frozen=True, eq=False)
class _Ready:
    """All that a run reads before it has a model.

    Attributes:
        hidden: id of the token that is read in place of hidden ones; None where none are.
        pairs: None where the objective reads none.
        from_export: whether the run starts from a Hugging Face folder.
        iterations: optimizer steps of the run.
    """

    tokenizer: Tokenizer
    data: TrainingData
    hidden: int | None
    objective: Objective
    pairs: Pairs | None
    from_export: bool
    iterations: int


def _prepare(settings: TrainSettings) -> _Ready:
    """What the run stops at, if it does, before its processes meet.

    Raises:
        InputError: as `dry_run`.
    """
    from ifguide.data.text.reader import TextReader
    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.engine.checkpoint import loads_huggingface
    from ifguide.engine.datasets import open_training_data, training_iterations
    from ifguide.engine.model import hidden_input
    from ifguide.engine.pairs.preparation import open_pairs
    from ifguide.objectives.registry import build_objective

    tokenizer = build_tokenizer(settings.tokenizer_type, settings.vocab_file, settings.merge_file)
    data = open_training_data(settings, tokenizer)
    hidden = hidden_input(settings, tokenizer)
    objective = build_objective(settings.keys, penalised=bool(data.penalties))
    pairs = open_pairs(settings, TextReader(tokenizer, tokenizer.bos)) if objective.reads_pairs else None
    from_export = loads_huggingface(settings.load, settings.finetune)
    iterations = training_iterations(settings, data)
    if objective.warmup_iters >= iterations:
        raise InputError(f"repo_warmup_iters: {objective.warmup_iters} of {iterations} leave the model no iteration")
    return _Ready(tokenizer, data, hidden, objective, pairs, from_export, iterations)


def _announcement(settings: TrainSettings, ready: _Ready) -> list[str]:
    """What is said of the penalty, the masks and the pairs before training."""
    said = announcement(vars(settings.keys))
    if ready.data.penalties and not settings.keys.repo_penalty:
        said[0] = "penalty: none, the masks only say which tokens are toxic"
    if ready.pairs is not None:
        said.append(f"objective: {ready.objective.name}, {counted(len(ready.pairs), 'pair')} of {ready.pairs.path}")
    return said


def _where_the_model_is(save: str | None) -> list[str]:
    if not save:
        return ["nothing was kept: the configuration names no folder to save into"]
    model = Path(save) / "hf"
    words = ["--model", model, "--prompts", "PROMPTS.jsonl", "--output", Path(save) / "said.jsonl"]
    return [
        f"model: {model} (Hugging Face folder); to continue it: load {save}",
        f"next: {shlex.join(['ifguide', 'generate', *map(str, words)])}",
    ]


def join_processes() -> None:
    """Meet the other processes of the run; one GPU each, or gloo on a CPU."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator.device_name() != "cpu":
        accelerator.set_device(this_process().local_rank or 0)
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


def _write_record(folder: str | None, record: dict[str, Any], started: float) -> None:
    if folder:
        from ifguide.system.provenance import write_run_record

        write_run_record(folder, began=started, **record)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
