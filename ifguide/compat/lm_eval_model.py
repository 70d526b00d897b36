"""lm-eval's class for transformers models, told how many rows to read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.models.huggingface import HFLM


class SizedLM(HFLM):
    """`HFLM`, which asks `rows_of` for the size of each batch wherever it is free to choose.

    Its answers are `HFLM`'s; a subclass that overrides the public methods asks `answer` for them.
    """

    def rows_of(self, length: int) -> int:
        """How many sequences of ``length`` tokens to read at once."""
        raise NotImplementedError

    def answer(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        """`HFLM`'s own answers to requests of one kind (``loglikelihood``, ...)."""
        with self._sized(kind):
            return getattr(HFLM, kind)(self, requests, disable_tqdm=True)

    @property
    def given_rows(self) -> int | None:
        """The batch size as it was asked for, None for what fits."""
        given: Any = self.batch_size_per_gpu
        return None if given == "auto" else int(given)

    @contextmanager
    def _sized(self, kind: str) -> Iterator[None]:
        given: Any = self.batch_size
        if kind != "loglikelihood" and given == "auto":
            # lm-eval has a schedule by length for that kind alone
            self.batch_size_per_gpu = self.rows_of(self.max_length)
        try:
            yield
        finally:
            self.batch_size_per_gpu = given

    def _loglikelihood_tokens(
        self, requests: list, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        # of rolling windows lm-eval shows a bar for every batch, whatever it is told
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def _batch_scheduler(self, pos: int, n_reordered_requests: Sequence) -> int:
        """Rows of the batch that holds request ``pos``; lm-eval asks for each, in falling order of length."""
        if pos == 0:
            lengths = [min(len(context) + len(target), self.max_length) for _, context, target in n_reordered_requests]
            self._plan: list[int] = []
            while len(self._plan) < len(lengths):
                # the first of a batch is its longest, to which the others are padded
                rows = self.rows_of(lengths[len(self._plan)])
                self._plan += [rows] * rows
        return self._plan[pos]

    def _detect_batch_size(self, requests: Sequence | None = None, pos: int = 0) -> int:
        return self.rows_of(self.max_length)
