"""Token datasets -> training samples, packed by megatron-core's GPTDataset, with penalties alongside.

A sample is seq_length + 1 consecutive tokens of a shuffled stream of documents: ``text[:-1]`` goes in,
``text[1:]`` are the labels. The penalty code of a token acts where the token is a LABEL, so a sample
carries ``codes[1:]`` of the very same document ranges (`Documents`).

Shapes: T seq_length, B samples of a micro-batch, N_tokens tokens of a dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.compat.megatron import megatron_datasets, sample_values
from ifguide.data.aligned import Aligned
from ifguide.data.indexed import TokenDataset
from ifguide.errors import InputError
from ifguide.objectives.base import TokenBatch
from ifguide.penalties.coding import TOKEN_BITS, highest_code, pack, scaled, unpack


def stack(samples: Sequence[dict[str, Tensor]], vocab_size: int) -> TokenBatch:
    """B samples as one batch.

    Raises:
        InputError: a token id that the model's (padded) vocabulary does not have.
    """
    stacked = (torch.stack([sample[name] for sample in samples]) for name in TokenBatch._fields)
    batch = TokenBatch(*stacked)
    largest = int(torch.maximum(batch.tokens.max(), batch.labels.max()))
    if largest >= vocab_size:
        raise InputError(
            f"the data holds token {largest}, the vocabulary has {vocab_size}: it was made with another tokenizer"
        )
    return batch


class Documents:
    """The documents of a token dataset as GPTDataset reads them, each token with its penalty code on top.

    Values are packed as `ifguide.penalties.coding` says: whatever ranges GPTDataset asks for, a token and its code
    cannot part.

    Attributes:
        sequence_lengths: int32[N_docs].
    """

    def __init__(self, tokens: TokenDataset, penalties: Aligned | None):
        self.sequence_lengths = tokens.lengths.astype(np.int32)
        self._starts, self._tokens = tokens.starts, tokens.tokens
        self._codes = None if penalties is None else penalties.values
        self._encoding = "binary" if penalties is None else penalties.sidecar["encoding"]
        self._prefix = tokens.prefix

    def get(self, document: int, offset: int = 0, length: int | None = None) -> np.ndarray:
        """int64[length] from ``offset`` of ``document``; to its end without ``length``.

        Raises:
            InputError: a token id or a code that no dataset of ours holds, and that would pass for another.
        """
        begin = self._starts[document] + offset
        end = self._starts[document + 1] if length is None else begin + length
        values = self._tokens[begin:end].astype(np.int64)
        if values.max(initial=0) > TOKEN_BITS or values.min(initial=0) < 0:
            raise InputError(f"{self._prefix}: document {document} holds an impossible token id: run `ifguide verify`")
        if self._codes is not None:
            codes = self._codes[begin:end]
            if codes.max(initial=0) > highest_code(self._encoding):
                raise InputError(
                    f"{self._prefix}: its {self._encoding} mask holds {codes.max()} in document {document}: "
                    "run `ifguide verify`"
                )
            values = pack(values, scaled(codes.astype(np.int64), self._encoding))
        return values


@cache
def penalised_dataset_class() -> Any:
    """The `GPTDataset` subclass whose samples carry penalty codes.

    Its ``config`` has, beside megatron-core's fields, ``documents``: dataset prefix -> `Documents`, and
    ``hidden_token``: what is read in place of selected tokens; None where they are read as they are.
    """
    megatron = megatron_datasets()

    class PenalisedGPTDataset(megatron.GPTDataset):  # type: ignore[name-defined, misc]
        """Samples of one token dataset: `TokenBatch`'s fields for one sample, each [T]."""

        @staticmethod
        def build_low_level_dataset(dataset_path: str, config: Any) -> Documents:
            return config.documents[dataset_path]

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            values = sample_values(self, index)  # int64[T + 1], -1 = padding
            padded = torch.from_numpy(values < 0)
            text, above = unpack(torch.from_numpy(values))
            text, codes = text.masked_fill_(padded, 0), above[1:]
            loss_mask = (~padded[1:]).float()
            if self.config.eod_mask_loss:
                loss_mask[text[:-1] == self.config.tokenizer.eod] = 0.0
            # validation and test report the plain CE, whatever mask their dataset has
            counts = self.index_split == megatron.Split.train
            tokens, hidden = text[:-1], self.config.hidden_token
            if hidden is not None and counts:
                tokens = tokens.masked_fill(above[:-1] > 0, hidden)
            return {
                "tokens": tokens,
                "labels": text[1:],
                "loss_mask": loss_mask,
                "codes": codes.to(torch.uint8) if counts else torch.zeros(len(codes), dtype=torch.uint8),
            }

    return PenalisedGPTDataset
