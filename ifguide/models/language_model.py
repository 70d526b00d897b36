"""A Hugging Face language model and its reader of text, loaded from a local folder and checked together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifguide.data.text.reader import TextReader
from ifguide.errors import MismatchError
from ifguide.models.folder import require_model_folder
from ifguide.models.loading import load_causal_model
from ifguide.system.files import read_json

# what a tokenizer without a limit says
_NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class LanguageModel:
    """A causal model in evaluation mode with what is needed to feed it as in packed training.

    Attributes:
        model: the transformers model.
        reader: turns text into tokens and back, as in the data that the model was trained on.
        stops: ids that end a continuation; see `stop_ids`.
        max_length: longest sequence the model takes, in tokens.
        never: ids that are never generated; see `suppressed_ids`.
    """

    model: Any
    reader: TextReader
    stops: frozenset[int]
    max_length: int
    never: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """The folder it came from, or what kind it is."""
        return self.model.name_or_path or type(self.model).__name__

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def eod(self) -> int | None:
        """Id of the token that separates documents, None if there is none."""
        return self.reader.eod

    @property
    def vocab_size(self) -> int:
        """Tokens that the tokenizer knows; the model may have more rows (padding of the embedding)."""
        return self.reader.vocab_size

    @cached_property
    def drawn_ids(self) -> int:
        """Ids from here on are never drawn: those that only pad the embedding, but for a stop among them."""
        return max([self.vocab_size, *(token + 1 for token in self.stops)])

    @cached_property
    def undrawable(self) -> Tensor | None:
        """bool ``[drawn_ids]``, True where an id is neither a token nor a stop, or one of `never`; None if there is no
        such id."""
        never = [token for token in self.never if token < self.drawn_ids]
        if self.drawn_ids == self.vocab_size and not never:
            return None
        ids = torch.arange(self.drawn_ids, device=self.device)
        padding = (ids >= self.vocab_size) & ~torch.isin(ids, self.stop_tokens)
        return padding | torch.isin(ids, torch.tensor(never, dtype=torch.int64, device=self.device))

    def drawable_logits(self, logits: Tensor) -> Tensor:
        """``logits[..., rows]`` -> ``[..., drawn_ids]`` as a sampler sees them: without the rows that only pad the
        embedding, minus infinity where an id is never drawn; float32 at least."""
        logits = logits[..., : self.drawn_ids]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits if self.undrawable is None else logits.masked_fill(self.undrawable, -torch.inf)

    @cached_property
    def stop_tokens(self) -> Tensor:
        """`stops` as ascending int64, where the model is."""
        return torch.tensor(sorted(self.stops), dtype=torch.int64, device=self.device)

    @property
    def opening(self) -> list[int]:
        """What a likelihood reads before a text's first token: the template's leading tokens, EOD where it has none.

        lm-eval reads a text the same way, so that likelihoods can be held against published ones.
        """
        return [*self.reader.prefix] or ([] if self.eod is None else [self.eod])

    def without_start(self, context: Sequence[int]) -> list[int]:
        """``context`` without EOD and the template's leading tokens, which are no text; of a context that was cut at
        the front, without what is left of them."""
        start = self.reader.prompt("")
        for cut in range(len(start)):
            if list(context[: len(start) - cut]) == start[cut:]:
                return list(context[len(start) - cut :])
        return list(context)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of every text by itself, without special tokens."""
        return self.reader.encode_batch(texts)

    def decode(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """Text of every sequence, special tokens included, spaces as they are."""
        return [self.reader.decode(list(ids)) for ids in sequences]


def load_language_model(
    folder: str | os.PathLike, dtype: torch.dtype = torch.float32, device: str = "cpu", eod_token: str | None = None
) -> LanguageModel:
    """Load the model and the tokenizer of ``folder``; nothing is fetched from anywhere.

    Args:
        dtype: of the weights.
        device: where they go.
        eod_token: the separator of documents, None for the one that the folder names.

    Raises:
        InputError: no such folder, or not a causal language model with its tokenizer.
        MismatchError: the tokenizer has tokens that the model has no embedding for.
    """
    require_model_folder(folder, "language model")
    reader = TextReader.of_model(folder, eod_token=eod_token)
    model = load_causal_model(folder, dtype, "language model")
    rows = _embedding_rows(model)
    if reader.vocab_size > rows:
        raise MismatchError(
            f"language model {folder}: the tokenizer has {reader.vocab_size} tokens, the model {rows}; "
            "put the tokenizer that the model was trained with into the folder"
        )
    limit = getattr(model.config, "max_position_embeddings", None) or _json(folder, "tokenizer_config.json").get(
        "model_max_length", _NO_LIMIT
    )
    stops, never = stop_ids(folder, reader, rows), suppressed_ids(folder)
    return LanguageModel(model.eval().to(device), reader, stops, int(limit), never - stops)


def stop_ids(folder: str | os.PathLike, reader: TextReader, rows: int) -> frozenset[int]:
    """The ids that end a text: the separator of documents, the token that ends a text by the tokenizer's template, and
    every ``eos_token_id`` that the folder's generation_config.json and config.json name.

    The files are read as they are: a configuration class would add ids of other tokenizers where they name none.

    Args:
        rows: of the model's embedding; an id beyond them can never be drawn.
    """
    named: list[Any] = [reader.eod, *reader.suffix[:1]]
    for name in ("generation_config.json", "config.json"):
        found = _json(folder, name).get("eos_token_id")
        named += found if isinstance(found, list) else [found]
    return frozenset(token for token in named if type(token) is int and 0 <= token < rows)


def suppressed_ids(folder: str | os.PathLike) -> frozenset[int]:
    """The ``suppress_tokens`` of the folder's generation_config.json, which transformers' ``generate`` leaves out too:
    what a training with ``penalty_action: hide`` has put in place of hidden tokens is no text."""
    found = _json(folder, "generation_config.json").get("suppress_tokens")
    return frozenset(token for token in (found if isinstance(found, list) else []) if type(token) is int)


def _embedding_rows(model: Any) -> int:
    return model.get_input_embeddings().weight.shape[0]


def _json(folder: str | os.PathLike, name: str) -> dict[str, Any]:
    """A JSON object of a model folder, empty where there is none."""
    path = Path(folder) / name
    value = read_json(path, "model file") if path.is_file() else {}
    return value if isinstance(value, dict) else {}
