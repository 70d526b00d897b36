"""Documents as windows: every document alone, every token scored exactly once.

A document of n tokens ``x`` becomes the sequence ``s = EOD, x_1 .. x_n`` (without an EOD token: ``s = x``, and
the first token has no score). Position p of ``s`` predicts ``s[p + 1]``. A sequence longer than the window is
covered by windows that overlap by ``context`` positions, whose labels the window before has scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ifguide.data.indexed import TokenDataset
from ifguide.errors import InputError
from ifguide.influence.batches import NO_LABEL, Batch, collate


@dataclass(frozen=True, eq=False)
class Windows:
    """Which inputs each window sees and which labels it scores; the order is that of the data.

    Attributes:
        dataset: the tokens.
        eod: the token before each document, or None.
        document: int64[W], the window's document.
        begin: int64[W], first position of ``s`` the window sees.
        first: int64[W], first position whose label it scores.
        end: int64[W], one past the last position.
    """

    dataset: TokenDataset
    eod: int | None
    document: np.ndarray
    begin: np.ndarray
    first: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.document)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64[W]: input positions of each window."""
        return self.end - self.begin

    @cached_property
    def scored(self) -> np.ndarray:
        """int64[W]: labels that each window scores."""
        return self.end - self.first

    @cached_property
    def targets(self) -> np.ndarray:
        """int64[W]: place in the dataset's flat tokens of the first label that each window scores.

        Windows in order score consecutive places (but for first tokens without a score).
        """
        return self.dataset.starts[self.document] + self.first + self._shift

    @property
    def _shift(self) -> int:
        """Position p predicts the document's token p (after an EOD) or p + 1."""
        return 0 if self.eod is not None else 1

    def select(self, which: np.ndarray | slice) -> Windows:
        """The windows at these indices."""
        return Windows(
            self.dataset, self.eod, self.document[which], self.begin[which], self.first[which], self.end[which]
        )

    def batch(self, which: np.ndarray) -> Batch:
        """The windows ``which``[B] as one padded batch."""
        inputs, labels = zip(*(self._sequence(int(window)) for window in which))
        return collate(inputs, labels)

    def places(self, which: np.ndarray) -> np.ndarray:
        """Flat places in the dataset of the batch's labelled positions, row by row."""
        targets, scored = self.targets, self.scored
        return np.concatenate([np.arange(targets[window], targets[window] + scored[window]) for window in which])

    def _sequence(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, labels) of one window; context labels are `NO_LABEL`."""
        begin, first, end = int(self.begin[window]), int(self.first[window]), int(self.end[window])
        tokens = self.dataset.document(int(self.document[window]))
        labels = tokens[begin + self._shift : end + self._shift].astype(np.int64)
        inputs = np.empty_like(labels)
        inputs[1:] = labels[:-1]
        if self.eod is None:
            inputs[0] = tokens[begin]
        else:
            inputs[0] = tokens[begin - 1] if begin else self.eod
        labels[: first - begin] = NO_LABEL
        return inputs, labels


def cut(dataset: TokenDataset, eod: int | None, seq_length: int, context: int) -> Windows:
    """Cover every document of ``dataset`` by windows of at most ``seq_length`` inputs.

    Args:
        context: positions by which the windows of a longer document overlap.

    Raises:
        InputError: ``context`` leaves no room for new tokens.
    """
    check_lengths(seq_length, context)
    positions = dataset.lengths - (0 if eod is not None else 1)
    fresh = seq_length - context
    # the first window scores seq_length labels, each further one `fresh` more
    counts = np.where(positions > 0, 1 + np.maximum(0, -(-(positions - seq_length) // fresh)), 0)
    document = np.repeat(np.arange(dataset.num_documents), counts)
    ordinal = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = ordinal * fresh
    first = np.where(ordinal == 0, 0, begin + context)
    end = np.minimum(begin + seq_length, positions[document])
    return Windows(dataset, eod, document, begin, first, end)


def sample(windows: Windows, max_tokens: int | None, seed: int) -> Windows:
    """A seeded sample of whole windows, in data order, that scores at least ``max_tokens`` tokens (None: all)."""
    if max_tokens is None or max_tokens >= windows.scored.sum():
        return windows
    order = np.random.default_rng(seed).permutation(len(windows))
    enough = int(np.searchsorted(np.cumsum(windows.scored[order]), max_tokens)) + 1
    return windows.select(np.sort(order[:enough]))


def cut_into_shards(windows: Windows, tokens_per_shard: int) -> Iterator[tuple[slice, int, int]]:
    """Consecutive windows as shards of about ``tokens_per_shard`` scored tokens: ``(windows, start, stop)``,
    where [start, stop) are the flat places a shard covers; together they cover the dataset once."""
    number = (np.cumsum(windows.scored) - 1) // tokens_per_shard
    cuts = np.flatnonzero(np.diff(number)) + 1
    first_windows = [0, *cuts.tolist()]
    stops = [*windows.targets[cuts].tolist(), windows.dataset.num_tokens]
    start = 0
    for index, (window, stop) in enumerate(zip(first_windows, stops)):
        last = first_windows[index + 1] if index + 1 < len(first_windows) else len(windows)
        yield slice(window, last), start, stop
        start = stop


def check_lengths(seq_length: int, context: int) -> None:
    """
    Raises:
        InputError: the window or the overlap is impossible.
    """
    if seq_length < 1:
        raise InputError(f"--seq-length {seq_length}: must be at least 1")
    if not 0 <= context < seq_length:
        raise InputError(f"--context {context}: must be at least 0 and below --seq-length {seq_length}")


def default_context(seq_length: int) -> int:
    """A quarter of the window: every token of a long document sees that much, at a third more work."""
    return seq_length // 4


def resolve_lengths(window: int | None, seq_length: int | None, context: int | None) -> tuple[int, int]:
    """(seq_length, context) from what the user gave and the model's ``window``.

    Raises:
        InputError: longer than the model can see, or an impossible overlap.
    """
    if seq_length is None:
        seq_length = min(window or 2048, 2048)
    if window is not None and seq_length > window:
        raise InputError(
            f"--seq-length {seq_length} is longer than the model's max_position_embeddings {window}; give that at most"
        )
    if context is None:
        context = default_context(seq_length)
    check_lengths(seq_length, context)
    return seq_length, context


def check_tokens(dataset: TokenDataset, vocab_size: int) -> None:
    """
    Raises:
        InputError: a token id that the model has no logit for.
    """
    step = 1 << 24
    for start in range(0, dataset.num_tokens, step):
        chunk = dataset.tokens[start : start + step]
        largest = int(chunk.max())
        if largest >= vocab_size or int(chunk.min()) < 0:
            raise InputError(
                f"{dataset.prefix} holds token id {largest if largest >= vocab_size else int(chunk.min())}, the model "
                f"has {vocab_size} logits; the data was made with another tokenizer: preprocess it with the model's"
            )
