"""One pass over the data by any number of processes that share a folder, and by one that was killed and comes again.

The data is cut into numbered shards, the same for everybody. A process scores the shards of its share, each under a
lock that the system frees if it dies, and passes over those that another is at. Then it takes what is left of the
others' shares. Rank 0 waits in the end for what others are at, and is the only one that merges. Processes that no
launcher numbers are all rank 0 of one: they take shards in turn, and the first that finds none missing merges.
"""

from __future__ import annotations

import contextlib
import os
import platform
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ifguide.errors import InputError
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.windows import Cutting, Piece, Windows
from ifguide.system.locks import has_locks, taken_if_possible
from ifguide.system.progress import Progress
from ifguide.system.run_process import this_process

_TOKENS = 1 << 18
_MOST_SHARDS = 1 << 16

Found = TypeVar("Found")


@dataclass(frozen=True)
class Shard:
    """A part of the work.

    Attributes:
        number: in data order.
        windows: which of the run's windows.
        start, stop: flat places [start, stop) of the dataset that it covers; all shards together cover it once.
        document: of its first window: a range of documents does the shards that begin in it.
        piece: what it is made of, where it is made of windows.
    """

    number: int
    windows: slice
    start: int
    stop: int
    document: int
    piece: Piece | None = None

    @property
    def tokens(self) -> int:
        return self.stop - self.start


def shard_tokens_for(tokens: int) -> int:
    """About how many tokens to keep at a time: few enough that a kill costs little, enough to fill batches with windows
    of equal length, and so many that a run has at most 2^16 shards: everybody looks at all of them."""
    size = _TOKENS
    while size * _MOST_SHARDS < tokens:
        size *= 2
    return size


def plan_shards(windows: Windows | Cutting, tokens_per_shard: int) -> list[Shard]:
    """The shards of ``windows``."""
    return [
        Shard(number, piece.windows, piece.start, piece.stop, piece.first, piece)
        for number, piece in enumerate(windows.pieces(tokens_per_shard))
    ]


@dataclass(frozen=True)
class Share:
    """Which process of how many this is, as torchrun and DeepSpeed's launcher say.

    Attributes:
        rank: 0 waits for the others and merges.
    """

    rank: int = 0
    ranks: int = 1

    @classmethod
    def from_environment(cls) -> Share:
        """
        Raises:
            InputError: RANK and WORLD_SIZE do not go together.
        """
        process = this_process()
        return cls(process.rank, process.world_size)

    def of(self, shards: Sequence[Shard]) -> list[Shard]:
        """This process's consecutive shards, of as many tokens as everybody's."""
        return [shard for shard, rank in zip(shards, self._owners(shards)) if rank == self.rank]

    def of_others(self, shards: Sequence[Shard]) -> list[Shard]:
        """What the other ranks own, the next rank's first, each from its end: the owner comes from the front."""
        owned: list[list[Shard]] = [[] for _ in range(self.ranks)]
        for shard, rank in zip(shards, self._owners(shards)):
            owned[rank].append(shard)
        following = owned[self.rank + 1 :] + owned[: self.rank]
        return [shard for shares in following for shard in reversed(shares)]

    def _owners(self, shards: Sequence[Shard]) -> list[int]:
        """The rank of each shard."""
        tokens = np.array([shard.tokens for shard in shards], dtype=np.int64)
        middles = np.cumsum(tokens) - tokens / 2
        return np.minimum(middles * self.ranks // max(1, tokens.sum()), self.ranks - 1).astype(int).tolist()


def in_documents(shards: Sequence[Shard], documents: slice | None) -> list[Shard]:
    """The shards that begin in these documents; ranges that together name every document do every shard once."""
    if documents is None:
        return list(shards)
    return [shard for shard in shards if documents.start <= shard.document < documents.stop]


def parse_documents(text: str, count: int) -> slice:
    """``a:b`` (either may be left out) as documents [a, b) of ``count``.

    Raises:
        InputError: not of that form, or no document is in it.
    """
    first, colon, last = text.partition(":")
    try:
        begin, end = int(first or 0), int(last or count)
    except ValueError:
        colon = ""
        begin = end = 0
    if not colon or not 0 <= begin < end <= count:
        raise InputError(f"--documents {text}: must be FIRST:LAST with 0 <= FIRST < LAST <= {count}, the last excluded")
    return slice(begin, end)


def work(
    store: ShardStore,
    shards: Sequence[Shard],
    share: Share,
    score_shard: Callable[[Shard, Callable[[int], None]], np.ndarray],
    quiet: bool,
) -> int:
    """Score this process's ``shards``, then those of others that are free; as rank 0 also wait for what others are at.

    Args:
        score_shard: the values of a shard; reports tokens as it goes.

    Returns:
        Tokens that this call scored.
    """
    mine = share.of(shards)
    known = store.known
    before = sum(shard.tokens for shard in mine if shard.number in known)
    total = sum(shard.tokens for shard in mine)
    can_tell = _can_tell(store)
    own = [shard for shard in mine if shard.number not in known]
    if share.ranks == 1 and not can_tell:
        # whoever else works here begins elsewhere, so that they meet late
        place = zlib.crc32(f"{platform.node()} {os.getpid()}".encode()) % max(1, len(own))
        own = own[place:] + own[:place]
    with Progress(total, "tokens", "score", done=before, quiet=quiet or share.rank > 0) as progress:
        scored, taken = _take_free(store, own, score_shard, progress.update, progress.skip)
    if share.rank > 0 and not can_tell:
        return scored
    store.look()
    others, more = _take_free(store, share.of_others(shards), score_shard, _ignore, _ignore)
    scored += others
    if share.rank == 0:
        for shard in taken + more:
            scored += _wait_and_do(store, shard, score_shard)
    return scored


def _can_tell(store: ShardStore) -> bool:
    """Whether a shard that another process is at can be told from a free one."""
    try:
        return has_locks(store.folder)
    except FileNotFoundError:
        if not store.removed:
            raise
        return True


def _ignore(tokens: int) -> None:
    """No part of this process's progress."""


def _take_free(
    store: ShardStore,
    shards: Sequence[Shard],
    score_shard: Callable,
    on_tokens: Callable[[int], None],
    on_others: Callable[[int], None],
) -> tuple[int, list[Shard]]:
    """Score those of ``shards`` that are neither finished nor another's.

    Returns:
        Tokens that were scored, and the shards that another process was at.
    """
    scored, taken = 0, []
    for shard in shards:
        found = _do(store, shard, score_shard, on_tokens, wait=False)
        if found is None:
            taken.append(shard)
        else:
            scored += found
        if not found:
            on_others(shard.tokens)
    return scored, taken


def _wait_and_do(store: ShardStore, shard: Shard, score_shard: Callable) -> int:
    """Tokens that were scored here after whoever was at ``shard`` has finished it, or died."""
    return _do(store, shard, score_shard, _ignore, wait=True) or 0


def _do(
    store: ShardStore, shard: Shard, score_shard: Callable, on_tokens: Callable[[int], None], wait: bool
) -> int | None:
    """Score ``shard`` unless it is done; returns the tokens that were scored here, None if another is at it."""
    if store.finished(shard.number):
        return 0
    try:
        with turn(store.lock(shard.number), wait) as mine:
            if not mine:
                return None
            if store.finished(shard.number):  # by another process, while this one waited
                return 0
            store.write(shard.number, score_shard(shard, on_tokens))
            return shard.tokens
    except FileNotFoundError:
        if not store.removed:
            raise
        return 0


def found_or_made(lock: Path, find: Callable[[], Found | None], make: Callable[[], Found]) -> Found:
    """What ``find`` finds, without any waiting; else one process makes it and the others wait and find it.

    Raises:
        FileNotFoundError, InputError: as `turn`.
    """
    found = find()
    if found is not None:
        return found
    with turn(lock):
        found = find()
        return make() if found is None else found


@contextlib.contextmanager
def turn(path: Path, wait: bool = True) -> Iterator[bool]:
    """Wait until no other process is in a block of this ``path``; False, at once, if one is and this one shall not
    ``wait``. Where the file system has no locks two processes may do the same work, but never wrongly: all files are
    renamed whole.

    Raises:
        FileNotFoundError: its folder is gone.
        InputError: its folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            mine = stack.enter_context(taken_if_possible(path, wait))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        yield mine
