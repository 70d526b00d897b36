"""Token perplexity of texts: exp of the mean cross-entropy over all their tokens.

Shapes: B windows, T tokens, V vocabulary.

A text is read as in packed training, after the template's leading tokens (`LanguageModel.opening`; EOD where there are
none), and every token of its own counts once. A text longer than the model is
covered by windows; every window but the first reads `context` tokens again before the first one that it counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ifguide.errors import InputError, NumericsError
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.statistics.resampling import bootstrap, interval
from ifguide.system.progress import Progress

# logits of one batch: 2^26 floats are 256 MiB
_BATCH_LOGITS = 1 << 26
_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Perplexity:
    """The result; ``float(result)`` is the perplexity.

    Attributes:
        ppl: exp(nll / tokens).
        nll: summed cross-entropy, in nats.
        tokens: how many tokens were counted.
        by_text: (summed cross-entropy, counted tokens) of every text with a token to count.
    """

    ppl: float
    nll: float
    tokens: int
    by_text: tuple[tuple[float, int], ...] = ()

    def interval(self, seed: int = 0) -> tuple[float, float] | None:
        """95% percentile bootstrap over texts; None of one text, or where the perplexity is not finite."""
        if len(self.by_text) < 2 or not math.isfinite(self.ppl):
            return None
        pairs = np.array([(-nll, tokens) for nll, tokens in self.by_text])
        return interval(bootstrap(pairs, "perplexity", seed=seed))

    def __float__(self) -> float:
        return self.ppl


@dataclass(frozen=True)
class _Window:
    """Tokens of one text to read, of which the last ``counted`` are predicted and counted."""

    text: int
    ids: list[int]
    counted: int


def perplexity(
    model_dir: str | os.PathLike,
    texts: Sequence[str],
    *,
    append_eod: bool = False,
    max_length: int | None = None,
    context: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: bool = False,
) -> Perplexity:
    """Perplexity of ``texts`` under the model of a Hugging Face folder.

    Args:
        model_dir: folder with a causal language model and its tokenizer.
        texts: documents, each read by itself.
        append_eod: count what ends each document too: the template's trailing tokens and the EOD.
        max_length: window, in tokens (the model's own limit unless given).
        context: tokens that a later window reads again before it counts (half a window unless given).
        dtype: of the weights.
        device: where to run.
        progress: show a progress bar.

    Raises:
        InputError: an unusable folder or option, or nothing to count.
        MismatchError: tokenizer and model do not belong together.
        NumericsError: a text whose cross-entropy is not finite; names it.
    """
    lm = load_language_model(model_dir, dtype, device)
    return language_model_perplexity(
        lm, texts, append_eod=append_eod, max_length=max_length, context=context, progress=progress
    )


@torch.inference_mode()
def language_model_perplexity(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    append_eod: bool = False,
    max_length: int | None = None,
    context: int | None = None,
    progress: bool = False,
) -> Perplexity:
    """As `perplexity`, of a model that is already loaded."""
    length = lm.max_length if max_length is None else max_length
    context = length // 2 if context is None else context
    if not 2 <= length <= lm.max_length:
        raise InputError(f"max_length {length} must be at least 2 and at most the model's {lm.max_length}")
    if not 1 <= context <= length:
        raise InputError(f"context {context} must be at least 1 and at most the window of {length} tokens")
    if append_eod and lm.eod is None:
        raise InputError("append_eod needs an end-of-document token, and the tokenizer has none")
    opening = lm.opening
    ending = [*lm.reader.suffix, lm.eod] if append_eod and lm.eod is not None else []
    windows = [
        window
        for text, ids in enumerate(lm.encode(texts))
        for window in _windows(text, [*opening, *ids, *ending], max(1, len(opening)), length, context)
    ]
    tokens = sum(window.counted for window in windows)
    if not tokens:
        raise InputError("the texts have no tokens to count")
    sums, order = [], []
    with Progress(tokens, "tokens", "perplexity", quiet=not progress) as bar:
        for batch in _batches(windows, lm.model.config.vocab_size):
            nll = _window_nll(lm, batch)
            _require_finite(nll, batch)
            sums.append(nll)
            order += [(window.text, window.counted) for window in batch]
            bar.update(sum(window.counted for window in batch))
    values = torch.cat(sums).tolist()
    total = math.fsum(values)
    mean = total / tokens
    by_text: dict[int, tuple[float, int]] = {}
    for value, (text, counted) in zip(values, order, strict=True):
        before = by_text.get(text, (0.0, 0))
        by_text[text] = (before[0] + value, before[1] + counted)
    parts = tuple(by_text[text] for text in sorted(by_text))
    return Perplexity(math.exp(mean) if mean < 700 else math.inf, total, tokens, parts)


def _windows(text: int, ids: list[int], first: int, length: int, context: int) -> Iterator[_Window]:
    """Cover the predictions of ``ids[first:]``, each once; each window reads ``length`` tokens at most."""
    begin, counted_to = 0, first
    while counted_to < len(ids):
        stop = min(begin + length + 1, len(ids))
        yield _Window(text, ids[begin:stop], stop - counted_to)
        counted_to = stop
        begin = stop - context


def _batches(windows: list[_Window], vocab_size: int) -> Iterator[list[_Window]]:
    """Windows of similar length together, longest first, bounded by the size of their logits."""
    limit = min(_BATCH_TOKENS, _BATCH_LOGITS // vocab_size)
    batch: list[_Window] = []
    for window in sorted(windows, key=lambda window: -len(window.ids)):
        if batch and (len(batch) + 1) * len(batch[0].ids) > limit:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _window_nll(lm: LanguageModel, batch: list[_Window]) -> Tensor:
    """Summed cross-entropy ``[B]`` (float64) of the counted tokens of each window."""
    # padding is on the right, where causal attention never looks back from: no mask is needed
    width = len(batch[0].ids)
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    counted = torch.zeros(len(batch), width - 1, dtype=torch.bool)
    for row, window in enumerate(batch):
        ids[row, : len(window.ids)] = torch.tensor(window.ids)
        counted[row, len(window.ids) - 1 - window.counted : len(window.ids) - 1] = True
    ids, counted = ids.to(lm.device), counted.to(lm.device)
    logits = lm.model(input_ids=ids[:, :-1], use_cache=False).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    ce = torch.nn.functional.cross_entropy(logits[counted], ids[:, 1:][counted], reduction="none")
    rows = counted.nonzero()[:, 0]
    return torch.zeros(len(batch), dtype=torch.float64, device=ce.device).index_add_(0, rows, ce.double()).cpu()


def _require_finite(nll: Tensor, batch: list[_Window]) -> None:
    bad = (~torch.isfinite(nll)).nonzero()
    if bad.numel():
        raise NumericsError(f"the cross-entropy of text {batch[int(bad[0])].text} is not finite; is the model intact?")
