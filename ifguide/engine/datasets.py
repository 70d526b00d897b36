"""The training, validation and test sets of a run: opening, checking, splitting, indexing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.compat.megatron import megatron_datasets
from ifguide.data.aligned import Aligned, load_aligned
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import PENALTIES
from ifguide.data.text.reader import describe
from ifguide.data.text.record import recorded_tokenizer, shared_frame, tokenizer_difference
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.engine.index_cache import index_folder
from ifguide.engine.packing import Documents, penalised_dataset_class
from ifguide.engine.settings import SPLITS, TrainSettings
from ifguide.errors import InputError, MismatchError
from ifguide.penalties.hiding import graded_fault
from ifguide.penalties.keys import action_of

_CHUNK = 1 << 24
# prefixes of the datasets of one split, and how often to draw from each (None: as they are, once)
Blend = tuple[list[str], list[float] | None]


@dataclass(frozen=True)
class TrainingData:
    """Every dataset that a run reads, opened and checked.

    Attributes:
        tokens: prefix -> tokens.
        penalties: prefix of a training dataset -> its mask; absent where it has none.
        encoding: of the masks (`binary` or `graded`); None without masks.
    """

    tokens: dict[str, TokenDataset]
    penalties: dict[str, Aligned]
    encoding: str | None

    def fingerprints(self) -> dict[str, Any]:
        """``tokens`` and ``penalties``: absolute prefix -> fingerprint, for the run record and the index cache."""
        masks = self.penalties.values()
        return {
            "tokens": {str(Path(prefix).absolute()): fingerprint(dataset) for prefix, dataset in self.tokens.items()},
            "penalties": {str(Path(mask.prefix).absolute()): mask.sidecar["fingerprint"] for mask in masks},
        }


@dataclass(frozen=True)
class PackedData:
    """The sets of a run; ``valid`` and ``test`` are None where they have no sample."""

    train: Any
    valid: Any | None
    test: Any | None


def open_training_data(settings: TrainSettings, tokenizer: Tokenizer) -> TrainingData:
    """Open all datasets and masks of the run; ``tokenizer`` gets the separator that the data records.

    Raises:
        InputError: a dataset is damaged.
        MismatchError: a mask of other tokens, masks of different encodings, or tokens of another tokenizer.
    """
    listed = [prefix for split in SPLITS for prefix in settings.paths[split]]
    tokens = {prefix: TokenDataset.open(prefix) for prefix in dict.fromkeys(listed)}
    for prefix in tokens:
        if difference := tokenizer_difference(recorded_tokenizer(prefix), describe(tokenizer)):
            raise MismatchError(
                f"{prefix} was made with another tokenizer than {settings.tokenizer_type} {settings.vocab_file or ''} "
                f"({difference}); train with that one, or preprocess again"
            )
    eod, tokenizer.bos = shared_frame(tokens)
    tokenizer.eod = tokenizer.eod if eod is None else eod
    penalties = {prefix: load_aligned(mask, tokens[prefix], PENALTIES) for prefix, mask in settings.penalties.items()}
    encodings = {aligned.sidecar["encoding"] for aligned in penalties.values()}
    if len(encodings) > 1:
        raise MismatchError("train_penalty_data_paths: masks of encodings binary and graded cannot be mixed")
    for mask in penalties.values():
        if fault := graded_fault(action_of(vars(settings.keys)), str(mask.prefix), mask.sidecar["encoding"]):
            raise InputError(fault)
    return TrainingData(tokens, penalties, encodings.pop() if encodings else None)


def log_frequency(settings: TrainSettings, data: TrainingData, vocab_size: int) -> np.ndarray:
    """float32[V]: log of (1 + how often the training datasets have each token).

    Args:
        vocab_size: V, of the model; tokens beyond it are refused when they are read.
    """
    counts = np.zeros(vocab_size, np.int64)
    for prefix in settings.paths["train"]:
        tokens = data.tokens[prefix].tokens
        for first in range(0, len(tokens), _CHUNK):
            counts += np.bincount(tokens[first : first + _CHUNK], minlength=vocab_size)[:vocab_size]
    return np.log1p(counts).astype(np.float32)


def training_iterations(settings: TrainSettings, data: TrainingData) -> int:
    """Optimizer steps of the run: ``train_iters``, or the whole batches of ``train_epochs`` passes over the data.

    Raises:
        InputError: the training data has less than one batch.
    """
    if settings.train_iters is not None:
        return settings.train_iters
    counts = _split_tokens(settings, "train", data).values()
    samples = sum((count * settings.train_epochs - 1) // settings.seq_length for count in counts)
    if samples < settings.batch:
        raise InputError(
            f"train_epochs: {settings.train_epochs} are {samples} samples, less than a batch of {settings.batch}"
        )
    return samples // settings.batch


def pack(
    settings: TrainSettings,
    data: TrainingData,
    tokenizer: Tokenizer,
    train_samples: int,
    eval_samples: int,
    hidden: int | None = None,
) -> PackedData:
    """Build the sample indices; every process must call this.

    Validation and test sets are one epoch of their data, so that nothing counts twice; where weights
    are given they are ``eval_samples`` samples drawn by them. A set too short for a sample is None.

    Args:
        train_samples: samples that training draws; the data repeats in shuffled epochs as needed.
        eval_samples: most samples that one validation draws.
        hidden: id that training reads in place of selected tokens; None where they are read as they are.

    Raises:
        InputError: training data shorter than one sample.
    """
    options: dict[str, Any] = {
        "random_seed": settings.seed,
        "sequence_length": settings.seq_length,
        "eod_mask_loss": settings.eod_mask_loss,
        "drop_last_partial_validation_sequence": False,  # pad the last sample: every token is validated on
        "mid_level_dataset_surplus": 0.02,
    }
    blends = {name: _blend(settings, name, data) for name in SPLITS}
    sizes = [train_samples, *(eval_samples if _weights(blends[name]) else None for name in ("valid", "test"))]
    megatron = megatron_datasets()
    key = {
        **options,
        "blends": blends,
        "sizes": sizes,
        "split": settings.split,
        "tokens": data.fingerprints()["tokens"],
    }
    with index_folder(key) as folder:
        dataset_config = megatron.GPTDatasetConfig(
            **options,
            **_source(settings, blends),
            tokenizer=_PackingTokenizer(tokenizer),
            path_to_cache=folder,
            reset_position_ids=False,
            reset_attention_mask=False,
            create_attention_mask=False,
        )
        dataset_config.hidden_token = hidden
        dataset_config.documents = {
            prefix: Documents(dataset, data.penalties.get(prefix)) for prefix, dataset in data.tokens.items()
        }
        if dataset_config.split_matrix:
            dataset_config.split_matrix = [
                bounds if blends[name] else None for name, bounds in zip(SPLITS, dataset_config.split_matrix)
            ]
        return PackedData(*megatron.Builder(penalised_dataset_class(), sizes, lambda: True, dataset_config).build())


class _PackingTokenizer:
    """What GPTDataset asks of a tokenizer. It has no ``pad``: padding is -1, which no token is."""

    def __init__(self, tokenizer: Tokenizer):
        self.eod = tokenizer.eod
        self.vocab_size = tokenizer.vocab_size
        self.unique_identifiers = {"identity": tokenizer.vocabulary_fingerprint}


def _source(settings: TrainSettings, blends: dict[str, Blend | None]) -> dict[str, Any]:
    """The part of megatron-core's configuration that names the data."""
    if settings.shares is not None:
        return {"blend": blends["train"], "split": settings.split}
    return {"blend_per_split": [blends[name] for name in SPLITS]}


def _blend(settings: TrainSettings, split: str, data: TrainingData) -> Blend | None:
    """Datasets and weights of ``split``; None where it has no sample.

    Raises:
        InputError: a training dataset shorter than one sample.
    """
    tokens = _split_tokens(settings, split, data)
    # a validation sample may be padded, so two tokens (an input and a label) make one
    needed = 2 if split == "valid" else settings.seq_length + 1
    for prefix, count in tokens.items():
        if split == "train" and count < needed:
            raise InputError(f"the training part of {prefix} has {count} tokens; one sample needs {needed}")
    weights = settings.weights[split]
    usable = [position for position, count in enumerate(tokens.values()) if count >= needed]
    if not usable:
        return None
    prefixes = [list(tokens)[position] for position in usable]
    if len(prefixes) == 1:
        return prefixes, None
    if split == "train" and settings.train_iters is None:
        return prefixes, [float(tokens[prefix]) for prefix in prefixes]
    if weights is not None:
        return prefixes, [float(weights[position]) for position in usable]
    return prefixes, [1.0] * len(prefixes) if split == "train" else None


def _weights(blend: Blend | None) -> list[float] | None:
    return None if blend is None else blend[1]


def _split_tokens(settings: TrainSettings, split: str, data: TrainingData) -> dict[str, int]:
    """Prefix -> number of its tokens that belong to ``split``."""
    if settings.shares is None:
        return {prefix: data.tokens[prefix].num_tokens for prefix in settings.paths[split]}
    (prefix,) = settings.paths[split]
    dataset = data.tokens[prefix]
    bounds = np.cumsum([0.0, *settings.shares]) / sum(settings.shares)
    documents = [round(bound * dataset.num_documents) for bound in bounds]
    spans = dict(zip(SPLITS, pairwise(documents)))
    first, last = spans.get(split, (0, 0))
    return {prefix: int(dataset.starts[last] - dataset.starts[first])}
