"""Documents as windows: every document alone, every token scored exactly once.

A document of n tokens ``x`` becomes the sequence ``s = EOD, x_1 .. x_n`` (without an EOD token: ``s = x``, and
the first token has no score). Position p of ``s`` predicts ``s[p + 1]``. A sequence longer than the window is
covered by windows that overlap by ``context`` positions, whose labels the window before has scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from ifguide.data.fingerprint import token_range
from ifguide.data.indexed import TokenDataset
from ifguide.errors import InputError
from ifguide.influence.batches import NO_LABEL, Batch, collate

# a corpus of more windows is sampled without all of them in memory
_SAMPLED_FROM = 1 << 20
# documents that are looked at together: what is computed of them stays in the cache
_DOCUMENTS = 1 << 16
_PIECES = 1 << 12


@dataclass(frozen=True)
class Piece:
    """Consecutive windows.

    Attributes:
        windows: their numbers.
        start, stop: flat places [start, stop) of the dataset; all pieces together cover it once.
        first, last: documents of the first and, at most, of the last window.
    """

    windows: slice
    start: int
    stop: int
    first: int
    last: int


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

    def whole(self) -> Windows:
        """All of them, as `Cutting.whole` gives."""
        return self

    def of(self, piece: Piece) -> Windows:
        """The windows of a piece of `pieces`."""
        return self.select(piece.windows)

    @property
    def longest(self) -> int:
        """Input positions of the longest window, 0 where there is none."""
        return int(self.lengths.max(initial=0))

    def longest_ones(self, count: int) -> Windows:
        """The ``count`` longest, equal ones in data order."""
        return self.select(np.argsort(-self.lengths, kind="stable")[:count])

    def pieces(self, tokens_per_piece: int) -> Iterator[Piece]:
        """Consecutive windows in pieces of about so many scored tokens."""
        number = (np.cumsum(self.scored) - 1) // tokens_per_piece
        cuts = np.flatnonzero(np.diff(number)) + 1
        first_windows = [0, *cuts.tolist(), len(self)]
        starts = [0, *self.targets[cuts].tolist(), self.dataset.num_tokens]
        for index, (window, last) in enumerate(pairwise(first_windows)):
            documents = (int(self.document[window]), int(self.document[last - 1])) if len(self) else (0, -1)
            yield Piece(slice(window, last), starts[index], starts[index + 1], *documents)

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


@dataclass(frozen=True, eq=False)
class Cutting:
    """`Windows` of a dataset without the windows: those of a piece are cut when they are needed.

    A process holds the windows of the shard that it works on, whatever the size of the corpus; what concerns all of
    them is found in one pass over the lengths, in chunks.

    Attributes:
        dataset, eod: as of `Windows`.
        seq_length: positions of a window, at most.
        context: positions by which the windows of a longer document overlap.

    Raises:
        InputError: ``context`` leaves no room for new tokens.
    """

    dataset: TokenDataset
    eod: int | None
    seq_length: int
    context: int

    def __post_init__(self) -> None:
        check_lengths(self.seq_length, self.context)

    def __len__(self) -> int:
        return self._totals[0]

    @cached_property
    def longest(self) -> int:
        """Input positions of the longest window, 0 where there is none."""
        found = 0
        for _, positions in self._chunks():
            found = max(found, int(positions.max(initial=0)))
            if found >= self.seq_length:
                return self.seq_length
        return found

    def whole(self) -> Windows:
        """All windows."""
        return self._documents(0, self.dataset.num_documents)

    def of(self, piece: Piece) -> Windows:
        """The windows of a piece of `pieces`."""
        inside = self._documents(piece.first, piece.last + 1)
        place = piece.start - int(self.dataset.starts[piece.first]) - self._shift if len(inside) else 0
        before = 0 if place <= 0 else (place - self.context) // self._fresh
        return inside.select(slice(before, before + piece.windows.stop - piece.windows.start))

    def pieces(self, tokens_per_piece: int) -> Iterator[Piece]:
        """Consecutive windows in pieces of about so many scored tokens: those of `Windows.pieces`."""
        cuts: list[tuple[int, int, int, int]] = []
        scored = windows = 0
        for first, positions in self._chunks():
            if not positions.any():
                continue
            sums, counts = scored + np.cumsum(positions), self._counts(positions)
            # a piece begins with the first window that ends beyond a multiple of the size
            beyond = np.arange(-(-scored // tokens_per_piece), -(-int(sums[-1]) // tokens_per_piece)) * tokens_per_piece
            inside = np.searchsorted(sums, beyond, side="right")
            over = beyond - (sums[inside] - positions[inside]) - self.seq_length
            ordinal = np.where(over < 0, 0, over // self._fresh + 1)
            number = windows + (np.cumsum(counts) - counts)[inside] + ordinal
            # a window that ends beyond several begins one piece
            number, once = np.unique(number, return_index=True)
            ordinal, inside = ordinal[once], inside[once]
            label = np.where(ordinal == 0, 0, ordinal * self._fresh + self.context)
            place = self.dataset.starts[first + inside] + label + self._shift
            found = zip(number.tolist(), place.tolist(), (first + inside).tolist(), ordinal.tolist(), strict=True)
            cuts += [cut for cut in found if not cuts or cut[0] > cuts[-1][0]]
            scored, windows = int(sums[-1]), windows + int(counts.sum())
        yield from self._between(cuts, windows)

    def longest_ones(self, count: int) -> Windows:
        """The ``count`` longest windows, equal ones in data order: those of `Windows.longest_ones`."""
        chosen = np.zeros((0, 2), np.int64)  # length of the first window, document
        for first, positions in self._chunks():
            lengths = np.minimum(positions, self.seq_length)
            least = chosen[-1, 0] if len(chosen) == count else 0
            if least == self.seq_length:
                break
            better = np.flatnonzero(lengths > least)
            chosen = np.concatenate([chosen, np.stack([lengths[better], first + better], axis=1)])
            chosen = chosen[np.argsort(-chosen[:, 0], kind="stable")[:count]]
        documents = np.sort(chosen[:, 1])
        return self._of(documents, self.dataset.lengths[documents]).longest_ones(count)

    def sample(self, max_tokens: int, seed: int) -> Windows:
        """A seeded sample of whole windows, in data order, that scores at least ``max_tokens`` tokens."""
        count, scored = self._totals
        if max_tokens >= scored:
            return self.whole()
        pieces = list(self.pieces(max(1, scored // _PIECES)))
        first_windows = np.array([piece.windows.start for piece in pieces])
        wanted = min(count, 2 * max_tokens * count // scored + 16)
        while True:
            drawn = np.random.default_rng(seed).choice(count, wanted, replace=False)
            owner = np.searchsorted(first_windows, drawn, side="right") - 1
            tokens = np.zeros(wanted, np.int64)
            for piece in np.unique(owner):
                mine = owner == piece
                tokens[mine] = self.of(pieces[piece]).scored[drawn[mine] - first_windows[piece]]
            enough = int(np.searchsorted(np.cumsum(tokens), max_tokens)) + 1
            if enough <= wanted or wanted == count:
                break
            wanted = min(count, 2 * wanted)
        drawn = np.sort(drawn[:enough])
        owner = np.searchsorted(first_windows, drawn, side="right") - 1
        parts = [self.of(pieces[each]).select(drawn[owner == each] - first_windows[each]) for each in np.unique(owner)]
        arrays = ("document", "begin", "first", "end")
        joined = (np.concatenate([getattr(part, name) for part in parts]) for name in arrays)
        return Windows(self.dataset, self.eod, *joined)

    @cached_property
    def _totals(self) -> tuple[int, int]:
        """Windows and scored tokens."""
        found = [(int(self._counts(each).sum()), int(each.sum())) for _, each in self._chunks()]
        return sum(windows for windows, _ in found), sum(scored for _, scored in found)

    @property
    def _shift(self) -> int:
        return 0 if self.eod is not None else 1

    @property
    def _fresh(self) -> int:
        """Labels that each window but a document's first scores."""
        return self.seq_length - self.context

    def _chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first document, scored positions of each) of some documents after the other."""
        for first in range(0, self.dataset.num_documents, _DOCUMENTS):
            yield first, self._positions(self.dataset.lengths[first : first + _DOCUMENTS])

    def _positions(self, lengths: np.ndarray) -> np.ndarray:
        return np.maximum(lengths.astype(np.int64) - self._shift, 0)

    def _counts(self, positions: np.ndarray) -> np.ndarray:
        """Windows of each document: the first scores seq_length labels, each further one `_fresh` more."""
        counts = (positions > 0).astype(np.int64)
        long = np.flatnonzero(positions > self.seq_length)
        counts[long] += -(-(positions[long] - self.seq_length) // self._fresh)
        return counts

    def _documents(self, first: int, stop: int) -> Windows:
        """The windows of the documents [first, stop)."""
        return self._of(np.arange(first, stop), self.dataset.lengths[first:stop])

    def _of(self, documents: np.ndarray, lengths: np.ndarray) -> Windows:
        positions = self._positions(lengths)
        counts = self._counts(positions)
        place = np.repeat(np.arange(len(documents)), counts)
        ordinal = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        begin = ordinal * self._fresh
        first = np.where(ordinal == 0, 0, begin + self.context)
        end = np.minimum(begin + self.seq_length, positions[place])
        return Windows(self.dataset, self.eod, documents[place], begin, first, end)

    def _between(self, cuts: list[tuple[int, int, int, int]], windows: int) -> Iterator[Piece]:
        """The pieces that begin with window 0 and at each cut: (window, place, document, window of the document)."""
        cuts = [cut for cut in cuts if cut[0] > 0]
        begins = [(0, 0, self._first_document(), 0), *cuts]
        ends = [*cuts, (windows, self.dataset.num_tokens, self.dataset.num_documents, 0)]
        for (window, start, first, _), (next_window, stop, document, ordinal) in zip(begins, ends, strict=True):
            yield Piece(slice(window, next_window), start, stop, first, document if ordinal else document - 1)

    def _first_document(self) -> int:
        """The first that has a window."""
        for first, positions in self._chunks():
            if positions.any():
                return first + int(np.flatnonzero(positions)[0])
        return 0


def cut(dataset: TokenDataset, eod: int | None, seq_length: int, context: int) -> Windows:
    """Cover every document of ``dataset`` by windows of at most ``seq_length`` inputs.

    Args:
        context: positions by which the windows of a longer document overlap.

    Raises:
        InputError: ``context`` leaves no room for new tokens.
    """
    return Cutting(dataset, eod, seq_length, context).whole()


def sample(windows: Windows | Cutting, max_tokens: int | None, seed: int) -> Windows:
    """A seeded sample of whole windows, in data order, that scores at least ``max_tokens`` tokens (None: all)."""
    if isinstance(windows, Cutting):
        if max_tokens is not None and len(windows) > _SAMPLED_FROM:
            return windows.sample(max_tokens, seed)
        windows = windows.whole()
    if max_tokens is None or max_tokens >= windows.scored.sum():
        return windows
    order = np.random.default_rng(seed).permutation(len(windows))
    enough = int(np.searchsorted(np.cumsum(windows.scored[order]), max_tokens)) + 1
    return windows.select(np.sort(order[:enough]))


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


def check_tokens(dataset: TokenDataset, vocab_size: int, values: Callable[[], tuple[int, int]] | None = None) -> None:
    """
    Args:
        values: gives the smallest and the largest id, if they are needed (None: `token_range`).

    Raises:
        InputError: a token id that the model has no logit for.
    """
    kind = np.iinfo(dataset.dtype)
    if kind.min >= 0 and kind.max < vocab_size:
        return
    low, high = values() if values else token_range(dataset)
    if high >= vocab_size or low < 0:
        raise InputError(
            f"{dataset.prefix} holds token id {high if high >= vocab_size else low}, the model "
            f"has {vocab_size} logits; the data was made with another tokenizer: preprocess it with the model's"
        )
