"""Any Hugging Face sequence classifier in a local folder as a toxicity scorer.

Shapes: N texts, C labels of the classifier.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ifguide.errors import InputError
from ifguide.evaluation.models import require_model_folder
from ifguide.evaluation.scorers import Scorer

_BATCH_TOKENS = 8192


class HuggingFaceScorer(Scorer):
    """Probabilities of one label, or of every label of the classifier.

    Several labels that may hold together (`problem_type` multi-label) and a single logit go through a sigmoid,
    labels that exclude each other through a softmax. Texts longer than the classifier takes are truncated.

    Args:
        folder: with the classifier and its tokenizer.
        label: name of the label (case does not matter); None for all of them.
        device: where to run.
        batch_tokens: tokens scored at once, padding included.

    Raises:
        InputError: an unusable folder, no such label, or a regression head (its output is no probability).
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        label: str | None = None,
        *,
        device: str = "cpu",
        batch_tokens: int = _BATCH_TOKENS,
    ):
        require_model_folder(folder, "classifier")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise InputError(f"classifier {folder} cannot be loaded: {reason}") from error
        if loading["missing_keys"]:
            # transformers fills them with random numbers: a base model, not a classifier
            raise InputError(
                f"classifier {folder} lacks the weights {', '.join(sorted(loading['missing_keys'])[:3])}; "
                "give a trained sequence classifier"
            )
        self._model = model.eval().to(device)
        self._sigmoid = _uses_sigmoid(model.config, folder)
        self._names = [str(model.config.id2label[column]) for column in range(model.config.num_labels)]
        self._columns = self._select(label, folder)
        self._limit = _max_tokens(model, self._tokenizer)
        self._batch_tokens = batch_tokens
        self.labels = tuple(self._names[column] for column in self._columns)
        self.name = f"hf:{folder}" + (f"#{self.labels[0]}" if label else "")

    def _select(self, label: str | None, folder: str | os.PathLike) -> list[int]:
        if label is None:
            return list(range(len(self._names)))
        exact = [column for column, name in enumerate(self._names) if name == label]
        same = exact or [column for column, name in enumerate(self._names) if name.lower() == label.lower()]
        if len(same) != 1:
            raise InputError(f"classifier {folder} has no label '{label}'; it has: {', '.join(self._names)}")
        return same

    @torch.inference_mode()
    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        ids = self._tokenizer(texts, truncation=True, max_length=self._limit)["input_ids"]
        scores = np.full((len(texts), len(self._columns)), np.nan)
        for batch in self._batches([len(row) for row in ids]):
            padded = self._pad([ids[index] for index in batch])
            logits = self._model(**padded).logits.double()
            probabilities = logits.sigmoid() if self._sigmoid else logits.softmax(-1)
            scores[batch] = probabilities[:, self._columns].cpu().numpy()
        return {label: scores[:, column] for column, label in enumerate(self.labels)}

    def _pad(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        if self._tokenizer.pad_token is None:  # rows have one length then, see `_batches`
            ids = torch.tensor(rows, device=self._model.device)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        padded = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._model.device)
        return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Indices of texts of similar length, longest first; one text at a time if nothing can pad."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
            full = batch and (len(batch) + 1) * lengths[batch[0]] > self._batch_tokens
            if full or (batch and self._tokenizer.pad_token is None):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def _uses_sigmoid(config, folder: str | os.PathLike) -> bool:
    if config.problem_type == "regression":
        raise InputError(f"classifier {folder} is a regression model: its output is no probability")
    return config.problem_type == "multi_label_classification" or config.num_labels == 1


def _max_tokens(model, tokenizer) -> int:
    """Longest input in tokens, special ones included."""
    limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        # RoBERTa counts positions from padding_idx + 1, so it takes that many tokens less than it has positions
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit = module.num_embeddings - module.padding_idx - 1
    return int(min(limit, tokenizer.model_max_length))
