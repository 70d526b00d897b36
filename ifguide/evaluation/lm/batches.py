"""What a rank computes of an evaluation: answers of lm-eval's own class, and continuations, in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance

from ifguide.compat.lm_eval_model import SizedLM
from ifguide.evaluation.lm.tokens import ReaderTokenizer, continuation_tokens, framed, opening_tokens, padded
from ifguide.generation.draw import Drawing, Sampling, continuation_texts
from ifguide.generation.rad import Rad
from ifguide.models.language_model import LanguageModel

# elements of logits that one batch may hold on a CPU: 256 MiB in float32, and log_softmax makes a copy
_LOGITS_ON_CPU = 1 << 26
_SHARE_FOR_LOGITS = 0.2
_MOST_ROWS = 1024


class BatchedLM(SizedLM):
    """lm-eval's class for transformers models, with batches of its size where it is free to choose, and our tokens.

    Args:
        lm: the loaded model.
        batch_size: rows (sequences) at once, or ``auto``: what fits.
        rad: rewards that steer every sampled token.

    Attributes:
        jobs: what it can do, for `ifguide.system.ranks`.
    """

    def __init__(self, lm: LanguageModel, *, batch_size: int | str = "auto", rad: Rad | None = None):
        self._lm, self._rad = lm, rad
        super().__init__(pretrained=lm.model, backend="causal", max_length=lm.max_length, batch_size=batch_size)
        self.jobs: dict[str, Callable[..., Callable[[Any], Any]]] = {"answer": self._answer, "draw": self._draw}

    def _answer(self, kind: str) -> Callable[[Sequence[tuple]], list[Any]]:
        """Work on requests of one kind (``loglikelihood``, ...): their arguments -> lm-eval's answers."""

        def answers(arguments: Sequence[tuple]) -> list[Any]:
            requests = [Instance(kind, {}, given, 0, metadata=("", 0, 1)) for given in arguments]
            return self.answer(kind, requests)

        return answers

    def _draw(
        self, contexts: Sequence[Sequence[int]], sampling: Sampling, rows: int | None
    ) -> Callable[[Sequence[int]], list[list[str]]]:
        """Work on batches of ``contexts`` (their indices): ``[prompt of the batch][sample]`` -> continuation."""
        drawing = Drawing(self._lm, contexts, sampling, rows_per_batch=rows, rad=self._rad)

        def continuations(batch: Sequence[int]) -> list[list[str]]:
            drawn = drawing.draw(batch)
            return [continuation_texts(self._lm, contexts[index], ids) for index, ids in zip(batch, drawn, strict=True)]

        return continuations

    # --- text: see `ifguide.evaluation.lm.tokens` -------------------------------------------------------------------

    def make_tokenizer(self) -> ReaderTokenizer:
        return ReaderTokenizer(self._lm)

    def pair_tokens(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return continuation_tokens(self._lm, context, continuation)

    def text_tokens(self, text: str) -> tuple[list[int], list[int]]:
        return opening_tokens(self._lm), self._lm.reader.encode(text)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **options: Any,
    ) -> list[int]:
        """Tokens of a text, after the template's leading ones unless ``add_special_tokens`` is False."""
        ids = self._lm.reader.encode(string)
        ids = ids if add_special_tokens is False else framed(self._lm, ids)
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `tok_encode`, padded to one length: ids and mask ``[B, T]``."""
        rows = [self.tok_encode(text, left_truncate_len=left_truncate_len) or self._lm.opening for text in strings]
        return padded(rows, self.tokenizer.pad_token_id, left=padding_side == "left")

    # --- batches ----------------------------------------------------------------------------------------------------

    def rows_of(self, length: int) -> int:
        """How many sequences of ``length`` tokens may have all their logits in memory at once."""
        elements = _LOGITS_ON_CPU
        if self.device.type == "cuda":
            elements = int(_free_memory(self.device) * _SHARE_FOR_LOGITS) // self._lm.model.dtype.itemsize
        return max(1, min(_MOST_ROWS, elements // (length * self._lm.model.config.get_text_config().vocab_size)))


def _free_memory(device: torch.device) -> int:
    """Bytes that tensors can still take, torch's own reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
