"""A Hugging Face language model and its tokenizer, loaded from a local folder and checked together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ifguide.errors import InputError, MismatchError
from ifguide.system.hints import model_hint, with_hint
from ifguide.system.quiet import no_loading_bar


@dataclass(frozen=True)
class LanguageModel:
    """A causal model in evaluation mode with what is needed to feed it as in packed training.

    Attributes:
        model: the transformers model.
        tokenizer: its transformers tokenizer.
        vocab_size: tokens that the tokenizer knows; the model may have more rows (padding of the embedding).
        eod: id of the end-of-document token, None if the tokenizer has none.
        max_length: longest sequence the model takes, in tokens.
    """

    model: Any
    tokenizer: Any
    vocab_size: int
    eod: int | None
    max_length: int

    @property
    def name(self) -> str:
        """The folder it came from, or what kind it is."""
        return self.model.name_or_path or type(self.model).__name__

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def without_eod(self, context: Sequence[int]) -> list[int]:
        """``context`` without the EOD in front that starts a document."""
        return list(context[1:] if len(context) and context[0] == self.eod else context)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of every text by itself, without special tokens."""
        if not texts:
            return []
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """Text of every sequence, special tokens included, spaces as they are."""
        return self.tokenizer.batch_decode(
            [list(ids) for ids in sequences], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def load_language_model(
    folder: str | os.PathLike, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> LanguageModel:
    """Load the model and the tokenizer of ``folder``; nothing is fetched from anywhere.

    Raises:
        InputError: no such folder, or not a causal language model with its tokenizer.
        MismatchError: the tokenizer has tokens that the model has no embedding for.
    """
    require_model_folder(folder, "language model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        with no_loading_bar():
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"language model {folder} cannot be loaded: {_first_line(error)}") from error
    vocab_size, rows = len(tokenizer), _embedding_rows(model)
    if vocab_size > rows:
        raise MismatchError(
            f"language model {folder}: the tokenizer has {vocab_size} tokens, the model {rows}; "
            "put the tokenizer that the model was trained with into the folder"
        )
    limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return LanguageModel(model.eval().to(device), tokenizer, vocab_size, tokenizer.eos_token_id, int(limit))


def choose_device(name: str) -> str:
    """``auto`` -> cuda where there is one, else cpu; any other name as it is.

    Raises:
        InputError: torch has no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device '{name}' cannot be used: {_first_line(error)}") from error
    return name


def require_model_folder(folder: str | os.PathLike, what: str) -> None:
    """Check that ``folder`` is a local Hugging Face folder, so that no name is ever looked up on the hub.

    Raises:
        InputError: it is not; ``what`` names its role in the message.
    """
    if not Path(folder).is_dir():
        raise InputError(with_hint(f"{what} {folder} is not a folder", model_hint(folder)))
    if not (Path(folder) / "config.json").is_file():
        hint = model_hint(folder) or "give a Hugging Face folder (save_pretrained writes one)"
        raise InputError(f"{what} {folder} has no config.json; {hint}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _embedding_rows(model: Any) -> int:
    return model.get_input_embeddings().weight.shape[0]
