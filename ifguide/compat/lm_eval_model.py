"""lm-eval's class for transformers models, told how many rows to read at once and how to read text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window


class SizedLM(HFLM):
    """`HFLM`, which asks `rows_of` for the size of each batch wherever it is free to choose, and a subclass for tokens.

    A subclass that overrides the public methods asks `answer` for what they give here.
    """

    tokenizer: Any

    def make_tokenizer(self) -> Any:
        """What stands where `HFLM` has transformers' tokenizer."""
        raise NotImplementedError

    def pair_tokens(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens before a continuation, at least one, and its own."""
        raise NotImplementedError

    def text_tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens before a text, at least one, and its own."""
        raise NotImplementedError

    def rows_of(self, length: int) -> int:
        """How many sequences of ``length`` tokens to read at once."""
        raise NotImplementedError

    def answer(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        """Answers to requests of one kind (``loglikelihood``, ...)."""
        with self._sized(kind):
            return getattr(SizedLM, kind)(self, requests, disable_tqdm=True)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """``(nats, whether greedy decoding gives it)`` of each continuation."""
        pairs = [(request.args, *self.pair_tokens(*request.args)) for request in requests]
        return self._loglikelihood_tokens(pairs, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Nats of each text in lm-eval's windows: each token counts once, after as many as fit."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            opening, ids = self.text_tokens(request.args[0])
            rolling = get_rolling_token_windows(ids, opening[-1], self.max_length, context_len=1)
            for place, window in enumerate(rolling):
                before, counted = make_disjoint_window(window)
                windows.append((None, [*opening[:-1], *before] if place == 0 else before, counted))
                owners.append(number)
        totals = [0.0] * len(requests)
        rows = self.given_rows or self.rows_of(self.max_length)
        for start in range(0, len(windows), rows):
            found = self._loglikelihood_tokens(windows[start : start + rows], override_bs=rows)
            for owner, (nats, _) in zip(owners[start : start + rows], found, strict=True):
                totals[owner] += nats
        return totals

    def _create_tokenizer(self, *args: Any, **options: Any) -> None:
        """In place of the tokenizer that transformers would rebuild from a class name."""
        self.tokenizer = self.make_tokenizer()

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
