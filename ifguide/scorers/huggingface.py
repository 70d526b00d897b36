"""Hugging Face sequence classifiers as toxicity scorers: any one in a local folder, and ToxiGen-RoBERTa.

Shapes: N texts, C labels of the classifier, B texts in a batch, L tokens of its longest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ifguide.compat.transformers import commit_of
from ifguide.errors import InputError, first_line
from ifguide.models.folder import model_fingerprint, require_model_folder
from ifguide.models.loading import load_pretrained
from ifguide.scorers.base import Scorer
from ifguide.scorers.batching import by_length, distinct

# padded tokens scored at once: a processor's caches hold the activations of few, a graphics card wants many
_BATCH_TOKENS = {"cpu": 1024}
_BATCH_TOKENS_ELSEWHERE = 16384
# texts whose tokens are held at once to measure them
_TEXTS_AT_ONCE = 16384
TOXIGEN_HUB = "tomh/toxigen_roberta"


class ClassifierScorer(Scorer):
    """Probabilities of some of a classifier's labels.

    Equal texts are scored once; texts of similar length share a batch; what is longer than the classifier takes is cut
    by its tokenizer and counted in `truncated`. A text without any token stands for its start token alone.

    Args:
        model: a transformers sequence classifier.
        tokenizer: its tokenizer.
        columns: which outputs are scores, label -> column.
        sigmoid: labels that may hold together go through a sigmoid, labels that exclude each other through a softmax.
        name: the spec.
        device: where to run.
        batch_tokens: tokens scored at once, padding included.
    """

    max_tokens: int

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        columns: Mapping[str, int],
        *,
        sigmoid: bool,
        name: str,
        device: str = "cpu",
        batch_tokens: int | None = None,
    ):
        # a causal classifier reads the last token that is not padding, and counts positions from the left
        tokenizer.padding_side = "right"
        if getattr(model.config, "pad_token_id", None) is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        self.model = model.eval().to(device)
        self.tokenizer = tokenizer
        self.columns = list(columns.values())
        self.sigmoid = sigmoid
        self.labels, self.name = tuple(columns), name
        self.max_tokens = _max_tokens(model, tokenizer)
        self._batch_tokens = batch_tokens or _BATCH_TOKENS.get(self.model.device.type, _BATCH_TOKENS_ELSEWHERE)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits[..., C]`` -> probabilities ``[..., len(labels)]``, float64."""
        logits = logits.double()
        return (logits.sigmoid() if self.sigmoid else logits.softmax(-1))[..., self.columns]

    @torch.inference_mode()
    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        unique, back = distinct(texts)
        ids, too_long = self._encode(unique)
        self.truncated += int(too_long[back].sum())
        scores = np.full((len(ids), len(self.columns)), np.nan)
        # what cannot be padded is scored one text at a time
        most = 0 if self.tokenizer.pad_token_id is None else self._batch_tokens
        for batch in by_length([len(row) for row in ids], most):
            logits = self.model(**self._pad([ids[index] for index in batch])).logits
            scores[batch] = self.probabilities(logits).cpu().numpy()
        return {label: scores[back, column] for column, label in enumerate(self.labels)}

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        unique, back = distinct(texts)
        longer: np.ndarray = np.zeros(len(unique), dtype=bool)
        for start in range(0, len(unique), _TEXTS_AT_ONCE):
            rows = self.tokenizer(unique[start : start + _TEXTS_AT_ONCE], verbose=False)["input_ids"]
            longer[start : start + len(rows)] = [len(row) > self.max_tokens for row in rows]
        return longer[back]

    def _encode(self, texts: list[str]) -> tuple[list[list[int]], np.ndarray]:
        """Tokens of every text, no more than `max_tokens`, and which of them had more."""
        ids = self.tokenizer(texts, verbose=False)["input_ids"]
        too_long = np.array([len(row) > self.max_tokens for row in ids])
        for index in np.flatnonzero(too_long):
            ids[index] = self.tokenizer(texts[index], truncation=True, max_length=self.max_tokens)["input_ids"]
        return [row or [self._start_token()] for row in ids], too_long

    def _start_token(self) -> int:
        for token in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise InputError(f"scorer {self.name}: a text has no tokens, and the tokenizer no token for where one starts")

    def _pad(self, rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        # without a padding token there is one row
        pad = self.tokenizer.pad_token_id or 0
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        mask = (torch.arange(width) < lengths[:, None]).long()
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}


class HuggingFaceScorer(ClassifierScorer):
    """The classifier of a local folder: one of its labels, or all of them.

    Several labels that may hold together (`problem_type` multi-label) and a single logit go through a sigmoid,
    labels that exclude each other through a softmax.

    Args:
        folder: with the classifier and its tokenizer.
        label: name of the label (case does not matter); None for all of them.
        device, batch_tokens: see `ClassifierScorer`.

    Raises:
        InputError: an unusable folder, no such label, or a regression head (its output is no probability).
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        label: str | None = None,
        *,
        device: str = "cpu",
        batch_tokens: int | None = None,
    ):
        require_model_folder(folder, "classifier")
        model, tokenizer = load_classifier(folder, local=True)
        sigmoid = _uses_sigmoid(model.config, folder)
        names = [str(model.config.id2label[column]) for column in range(model.config.num_labels)]
        columns = {names[column]: column for column in _select(names, label, folder)}
        name = f"hf:{folder}" + (f"#{next(iter(columns))}" if label else "")
        super().__init__(
            model, tokenizer, columns, sigmoid=sigmoid, name=name, device=device, batch_tokens=batch_tokens
        )
        self._folder = Path(folder)

    def fingerprint(self) -> str | None:
        return model_fingerprint(self._folder)


class ToxigenScorer(ClassifierScorer):
    """ToxiGen-RoBERTa: implicit toxicity, abuse of groups without a swear word. Its second label is toxicity.

    Args:
        folder: a local copy; None for the hub.
        device: where to run.

    Raises:
        InputError: an unusable folder, no network, or not a classifier of two labels.
    """

    def __init__(self, folder: str | None = None, *, device: str = "cpu"):
        if folder is not None:
            require_model_folder(folder, "classifier")
        model, tokenizer = load_classifier(folder or TOXIGEN_HUB, local=folder is not None)
        if model.config.num_labels != 2:
            raise InputError(
                f"classifier {folder or TOXIGEN_HUB} has {model.config.num_labels} labels, ToxiGen-RoBERTa two; "
                "give it as hf:FOLDER#LABEL"
            )
        name = "toxigen-roberta" + (f"@{folder}" if folder else "")
        super().__init__(model, tokenizer, {"toxicity": 1}, sigmoid=False, name=name, device=device)
        self._folder = Path(folder) if folder else None

    def fingerprint(self) -> str | None:
        return model_fingerprint(self._folder) if self._folder else commit_of(TOXIGEN_HUB)


def load_classifier(where: str | os.PathLike, *, local: bool) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, or with ``local=False`` of a name on the hub.

    Raises:
        InputError: they cannot be loaded, or weights are missing.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"classifier {where} cannot be loaded: {first_line(error)}") from error
    # a base model would lack the head
    model = load_pretrained(
        AutoModelForSequenceClassification, where, torch.float32, "classifier", local_files_only=local
    )
    return model, tokenizer


def _select(names: list[str], label: str | None, folder: str | os.PathLike) -> list[int]:
    if label is None:
        return list(range(len(names)))
    exact = [column for column, name in enumerate(names) if name == label]
    same = exact or [column for column, name in enumerate(names) if name.lower() == label.lower()]
    if len(same) != 1:
        raise InputError(f"classifier {folder} has no label '{label}'; it has: {', '.join(names)}")
    return same


def _uses_sigmoid(config: Any, folder: str | os.PathLike) -> bool:
    if config.problem_type == "regression":
        raise InputError(f"classifier {folder} is a regression model: its output is no probability")
    return config.problem_type == "multi_label_classification" or config.num_labels == 1


def _max_tokens(model: Any, tokenizer: Any) -> int:
    """Longest input in tokens, special ones included."""
    limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        # RoBERTa counts positions from padding_idx + 1, so it takes that many tokens less than it has positions
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit = module.num_embeddings - module.padding_idx - 1
    return int(min(limit, tokenizer.model_max_length))
