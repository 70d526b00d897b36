"""What a rank computes of an evaluation: answers of lm-eval's own class, and continuations, in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from ifguide.generation.draw import Drawing, Sampling, continuation_texts
from ifguide.generation.rad import Rad
from ifguide.models.language_model import LanguageModel

# elements of logits that one batch may hold on a CPU: 256 MiB in float32, and log_softmax makes a copy
_LOGITS_ON_CPU = 1 << 26
_SHARE_FOR_LOGITS = 0.2
_MOST_ROWS = 1024


class BatchedLM(HFLM):
    """lm-eval's class for transformers models, with batches of its size where it is free to choose.

    Args:
        lm: the loaded model.
        batch_size: rows (sequences) at once, or ``auto``: what fits.
        rad: rewards that steer every sampled token.

    Attributes:
        jobs: what it can do, for `ifguide.system.ranks`.
    """

    def __init__(self, lm: LanguageModel, *, batch_size: int | str = "auto", rad: Rad | None = None):
        super().__init__(
            pretrained=lm.model,
            tokenizer=lm.tokenizer,
            backend="causal",
            max_length=lm.max_length,
            batch_size=batch_size,
        )
        self._lm, self._rad = lm, rad
        self.jobs: dict[str, Callable[..., Callable[[Any], Any]]] = {"answer": self._answer, "draw": self._draw}

    def _answer(self, kind: str) -> Callable[[Sequence[tuple]], list[Any]]:
        """Work on requests of one kind (``loglikelihood``, ...): their arguments -> lm-eval's answers."""

        def answers(arguments: Sequence[tuple]) -> list[Any]:
            requests = [Instance(kind, {}, given, 0, metadata=("", 0, 1)) for given in arguments]
            given: Any = self.batch_size
            if kind != "loglikelihood" and given == "auto":
                # lm-eval has a schedule by length for that kind alone
                self.batch_size_per_gpu = self._rows_of_logits(self.max_length)
            try:
                return getattr(HFLM, kind)(self, requests, disable_tqdm=True)
            finally:
                self.batch_size_per_gpu = given

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

    def _loglikelihood_tokens(
        self, requests: list, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        # of rolling windows lm-eval shows a bar for every batch, whatever it is told
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    # --- batches ----------------------------------------------------------------------------------------------------

    def _batch_scheduler(self, pos: int, n_reordered_requests: Sequence) -> int:
        """Rows of the batch that holds request ``pos``; lm-eval asks for each, in falling order of length."""
        if pos == 0:
            lengths = [min(len(context) + len(target), self.max_length) for _, context, target in n_reordered_requests]
            self._plan: list[int] = []
            while len(self._plan) < len(lengths):
                # the first of a batch is its longest, to which the others are padded
                rows = self._rows_of_logits(lengths[len(self._plan)])
                self._plan += [rows] * rows
        return self._plan[pos]

    def _detect_batch_size(self, requests: Sequence | None = None, pos: int = 0) -> int:
        return self._rows_of_logits(self.max_length)

    def _rows_of_logits(self, length: int) -> int:
        """How many sequences of ``length`` tokens may have all their logits in memory at once."""
        elements = _LOGITS_ON_CPU
        if self.device.type == "cuda":
            elements = int(_free_memory(self.device) * _SHARE_FOR_LOGITS) // self._lm.model.dtype.itemsize
        return max(1, min(_MOST_ROWS, elements // (length * self._lm.model.config.get_text_config().vocab_size)))


def _free_memory(device: torch.device) -> int:
    """Bytes that tensors can still take, torch's own reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
