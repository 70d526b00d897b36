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
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.index_cache import index_folder
from ifguide.engine.packing import Documents, penalised_dataset_class
from ifguide.errors import InputError, MismatchError

_SPLITS = ("train", "valid", "test")

# prefixes of the datasets of one split, and how often to draw from each (None: as they are, once)
Blend = tuple[list[str], list[float] | None]


@dataclass(frozen=True)
class Corpus:
    """Every dataset that a run reads, opened and checked.

    Attributes:
        tokens: prefix -> tokens.
        penalties: prefix of a training dataset -> its mask; absent where it has none.
        encoding: of the masks (`binary` or `graded`); None without masks.
    """

    tokens: dict[str, TokenDataset]
    penalties: dict[str, Aligned]
    encoding: str | None

    def identity(self) -> dict[str, Any]:
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


def open_corpus(config: TrainConfig, tokenizer: Tokenizer) -> Corpus:
    """Open all datasets and masks of ``config``; ``tokenizer`` gets the separator that the data records.

    Raises:
        InputError: a dataset is damaged.
        MismatchError: a mask of other tokens, masks of different encodings, or tokens of another tokenizer.
    """
    listed = [*config.training_paths, *(config.valid_data_paths or []), *(config.test_data_paths or [])]
    tokens = {prefix: TokenDataset.open(prefix) for prefix in dict.fromkeys(listed)}
    for prefix in tokens:
        if difference := tokenizer_difference(recorded_tokenizer(prefix), describe(tokenizer)):
            raise MismatchError(
                f"{prefix} was made with another tokenizer than {config.tokenizer_type} {config.vocab_file or ''} "
                f"({difference}); train with that one, or preprocess again"
            )
    eod, tokenizer.bos = shared_frame(tokens)
    tokenizer.eod = tokenizer.eod if eod is None else eod
    penalties = {
        prefix: load_aligned(mask, tokens[prefix], PENALTIES)
        for prefix, mask in zip(config.training_paths, config.penalty_paths)
        if mask
    }
    encodings = {aligned.sidecar["encoding"] for aligned in penalties.values()}
    if len(encodings) > 1:
        raise MismatchError("train_penalty_data_paths: masks of encodings binary and graded cannot be mixed")
    return Corpus(tokens, penalties, encodings.pop() if encodings else None)


def iterations_of_epochs(config: TrainConfig, corpus: Corpus, batch: int) -> int:
    """Optimizer steps of ``train_epochs`` passes over the training data, whole batches only.

    Raises:
        InputError: the training data has less than one batch.
    """
    assert config.train_epochs and config.seq_length
    counts = _split_tokens(config, "train", corpus).values()
    samples = sum((count * config.train_epochs - 1) // config.seq_length for count in counts)
    if samples < batch:
        raise InputError(f"train_epochs: {config.train_epochs} are {samples} samples, less than a batch of {batch}")
    return samples // batch


def pack(
    config: TrainConfig, corpus: Corpus, tokenizer: Tokenizer, train_samples: int, eval_samples: int
) -> PackedData:
    """Build the sample indices; every process must call this.

    Validation and test sets are one epoch of their data, so that nothing counts twice; where weights
    are given they are ``eval_samples`` samples drawn by them. A set too short for a sample is None.

    Args:
        train_samples: samples that training draws; the data repeats in shuffled epochs as needed.
        eval_samples: most samples that one validation draws.

    Raises:
        InputError: training data shorter than one sample.
    """
    assert config.seq_length
    settings: dict[str, Any] = {
        "random_seed": config.seed,
        "sequence_length": config.seq_length,
        "eod_mask_loss": config.eod_mask_loss,
        "drop_last_partial_validation_sequence": False,  # pad the last sample: every token is validated on
        "mid_level_dataset_surplus": 0.02,
    }
    blends = {name: _blend(config, name, corpus) for name in _SPLITS}
    sizes = [train_samples, *(eval_samples if _weights(blends[name]) else None for name in ("valid", "test"))]
    megatron = megatron_datasets()
    key = {**settings, "blends": blends, "sizes": sizes, "split": config.split, "tokens": corpus.identity()["tokens"]}
    with index_folder(key) as folder:
        dataset_config = megatron.GPTDatasetConfig(
            **settings,
            **_source(config, blends),
            tokenizer=_PackingTokenizer(tokenizer),
            path_to_cache=folder,
            reset_position_ids=False,
            reset_attention_mask=False,
            create_attention_mask=False,
        )
        dataset_config.documents = {
            prefix: Documents(dataset, corpus.penalties.get(prefix)) for prefix, dataset in corpus.tokens.items()
        }
        if dataset_config.split_matrix:
            dataset_config.split_matrix = [
                bounds if blends[name] else None for name, bounds in zip(_SPLITS, dataset_config.split_matrix)
            ]
        return PackedData(*megatron.Builder(penalised_dataset_class(), sizes, lambda: True, dataset_config).build())


class _PackingTokenizer:
    """What GPTDataset asks of a tokenizer. It has no ``pad``: padding is -1, which no token is."""

    def __init__(self, tokenizer: Tokenizer):
        self.eod = tokenizer.eod
        self.vocab_size = tokenizer.vocab_size
        self.unique_identifiers = {"identity": tokenizer.identity}


def _source(config: TrainConfig, blends: dict[str, Blend | None]) -> dict[str, Any]:
    """The part of megatron-core's configuration that names the data."""
    if config.data_path:
        return {"blend": blends["train"], "split": config.split}
    return {"blend_per_split": [blends[name] for name in _SPLITS]}


def _blend(config: TrainConfig, split: str, corpus: Corpus) -> Blend | None:
    """Datasets and weights of ``split``; None where it has no sample.

    Raises:
        InputError: a training dataset shorter than one sample.
    """
    assert config.seq_length
    tokens = _split_tokens(config, split, corpus)
    # a validation sample may be padded, so two tokens (an input and a label) make one
    needed = 2 if split == "valid" else config.seq_length + 1
    for prefix, count in tokens.items():
        if split == "train" and count < needed:
            raise InputError(f"the training part of {prefix} has {count} tokens; one sample needs {needed}")
    weights = getattr(config, f"{split}_data_weights")
    usable = [position for position, count in enumerate(tokens.values()) if count >= needed]
    if not usable:
        return None
    prefixes = [list(tokens)[position] for position in usable]
    if len(prefixes) == 1:
        return prefixes, None
    if split == "train" and config.train_epochs:
        return prefixes, [float(tokens[prefix]) for prefix in prefixes]
    if weights is not None:
        return prefixes, [float(weights[position]) for position in usable]
    return prefixes, [1.0] * len(prefixes) if split == "train" else None


def _weights(blend: Blend | None) -> list[float] | None:
    return None if blend is None else blend[1]


def _split_tokens(config: TrainConfig, split: str, corpus: Corpus) -> dict[str, int]:
    """Prefix -> number of its tokens that belong to ``split``."""
    if not config.data_path:
        return {prefix: corpus.tokens[prefix].num_tokens for prefix in getattr(config, f"{split}_data_paths") or []}
    dataset = corpus.tokens[config.data_path]
    shares = [float(share) for share in config.split.replace("/", ",").split(",")]
    bounds = np.cumsum([0.0, *shares]) / sum(shares)
    documents = [round(bound * dataset.num_documents) for bound in bounds]
    spans = dict(zip(_SPLITS, pairwise(documents)))
    first, last = spans.get(split, (0, 0))
    return {config.data_path: int(dataset.starts[last] - dataset.starts[first])}
