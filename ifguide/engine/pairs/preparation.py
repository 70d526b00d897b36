"""What an objective gets before its first step: pairs, a reference, numbers of the run."""

from __future__ import annotations

from typing import Any

import torch

from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.engine.datasets import TrainingData, log_frequency
from ifguide.engine.pairs.reading import Pairs, read_pairs
from ifguide.engine.pairs.reference import make_reference, reference_log_probs
from ifguide.engine.settings import TrainSettings
from ifguide.objectives.base import NEVER, ONCE, Objective, Run


def open_pairs(settings: TrainSettings, reader: TextReader) -> Pairs:
    """The pairs that the configuration names.

    Raises:
        InputError: they cannot be read; a `ConfigError` names every faulty line.
    """
    longest = settings.keys.max_position_embeddings
    assert settings.keys.pairs_data_path is not None and longest is not None
    return read_pairs(settings.keys.pairs_data_path, reader, longest, settings.seed)


def start_objective(
    objective: Objective,
    engine: Any,
    settings: TrainSettings,
    data: TrainingData,
    pairs: Pairs | None,
    tokenizer: Tokenizer,
    train_iters: int,
    finished: int,
) -> None:
    """Make what ``objective`` needs and start it; every process must call this.

    Args:
        finished: iterations that a continued run has behind it.

    Raises:
        InputError: the reference of a continued run is not there.
        MismatchError: the reference is of another architecture.
    """
    use = objective.reference_use
    reference = None if use == NEVER else make_reference(engine, settings, tokenizer, finished)
    log_probs = None
    if reference is not None and use == ONCE:
        assert pairs is not None
        log_probs = reference_log_probs(reference, pairs, tokenizer, engine.device)
        reference = None  # its memory is free from here on
    frequency = None
    if objective.reads_frequency:
        frequency = torch.from_numpy(log_frequency(settings, data, engine.module.config.vocab_size))
    objective.start(
        Run(
            train_iters=train_iters,
            micro_batches=settings.accumulation * settings.world_size,
            num_layers=settings.num_layers,
            hidden_size=settings.hidden_size,
            device=engine.device,
            seed=settings.seed,
            reference=reference,
            log_probs=log_probs,
            eod=tokenizer.eod,
            log_frequency=frequency,
        )
    )
