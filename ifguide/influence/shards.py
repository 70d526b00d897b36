"""One pass over the data by any number of processes that share a folder, and by one that was killed and comes again.

The data is cut into numbered shards, the same for everybody. A process scores those of its documents, each under a
lock that the system frees if it dies. Rank 0 then takes what is left, waits for what others are at, and is
the only one that merges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.errors import InputError
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.windows import Windows, cut_into_shards
from ifguide.system.locks import taken_if_possible
from ifguide.system.progress import Progress
from ifguide.system.run_process import this_process


@dataclass(frozen=True)
class Shard:
    """A part of the work.

    Attributes:
        number: in data order.
        windows: which of the run's windows.
        start, stop: flat places [start, stop) of the dataset that it covers; all shards together cover it once.
        document: of its first window: a range of documents does the shards that begin in it.
    """

    number: int
    windows: slice
    start: int
    stop: int
    document: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start


def plan_shards(windows: Windows, tokens_per_shard: int) -> list[Shard]:
    """The shards of ``windows``."""
    plan = enumerate(cut_into_shards(windows, tokens_per_shard))
    return [
        Shard(number, which, start, stop, int(windows.document[which.start]) if len(windows) else 0)
        for number, (which, start, stop) in plan
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
        if not shards:
            return []
        middles = np.cumsum([shard.tokens for shard in shards]) - np.array([shard.tokens for shard in shards]) / 2
        owner = np.minimum(middles * self.ranks // max(1, sum(shard.tokens for shard in shards)), self.ranks - 1)
        return [shard for shard, rank in zip(shards, owner) if rank == self.rank]


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
    """Score this process's ``shards``, and as rank 0 every one that is still missing then.

    Args:
        score_shard: the values of a shard; reports tokens as it goes.

    Returns:
        Tokens that this call scored.
    """
    mine = share.of(shards)
    before = sum(shard.tokens for shard in mine if store.finished(shard.number))
    total = sum(shard.tokens for shard in mine)
    scored = 0
    with Progress(total, "tokens", "score", done=before, quiet=quiet or share.rank > 0) as progress:
        for shard in mine:
            scored += _do(store, shard, score_shard, progress.update, progress.skip)
    if share.rank == 0:
        for shard in shards:
            scored += _do(store, shard, score_shard, lambda tokens: None, lambda tokens: None)
    return scored


def _do(
    store: ShardStore,
    shard: Shard,
    score_shard: Callable,
    on_tokens: Callable[[int], None],
    on_others: Callable[[int], None],
) -> int:
    """Score ``shard`` unless it is done; returns the tokens that were scored here."""
    if store.finished(shard.number):
        return 0
    try:
        with turn(store.lock(shard.number)):
            if store.finished(shard.number):  # by another process, while this one waited
                on_others(shard.tokens)
                return 0
            store.write(shard.number, score_shard(shard, on_tokens))
            return shard.tokens
    except FileNotFoundError:
        if not store.removed:
            raise
        return 0


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until no other process is in a block of this ``path``. Where the file system has no locks two processes may
    do the same work, but never wrongly: all files are renamed whole.

    Raises:
        FileNotFoundError: its folder is gone.
        InputError: its folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(taken_if_possible(path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        yield
