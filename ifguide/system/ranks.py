"""One evaluation on several processes: rank 0 leads, and every rank computes a share of the work.

Only rank 0 reads data, runs lm-eval and writes files. It deals out pieces of work in rounds, one piece a rank, and has
the results before the next round. What a piece holds never depends on the number of ranks, so no result does either:
the same tensors are computed, only elsewhere.

lm-eval has a way of its own, dealing out documents. It repeats a rank's last document where shares are uneven, and
stops where there are fewer documents than ranks; so it is told of one process, and the model spreads the work itself.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed

from ifguide.errors import IFGuideError, InputError
from ifguide.system.quiet import stdout_to_stderr
from ifguide.system.run_process import this_process

# rank 0 may load data, or other ranks a model, for longer than the usual limit
_PATIENCE = timedelta(days=365)

Work = Callable[[Any], Any]


class Ranks:
    """The processes of one run.

    Args:
        rank: of this process.
        size: how many there are.

    Attributes:
        jobs: what can be asked of a rank: name -> a function that prepares the work on a piece. It is called with what
            all pieces have in common, on each rank when its first piece comes.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.jobs: dict[str, Callable[..., Work]] = {}
        self._in_step = True

    def map(self, job: str, common: tuple[Any, ...], pieces: Sequence[Any]) -> Iterator[Any]:
        """On rank 0: the result of every piece, in their order.

        Raises:
            IFGuideError: as the job raised it, on whatever rank.
            RuntimeError: anything else that another rank raised, with its traceback.
        """
        work = _Prepared(self.jobs[job], common)
        if pieces:
            self._tell((job, common, None))
        for start in range(0, len(pieces), self.size):
            shares = list(pieces[start : start + self.size])
            self._tell((None, None, shares))
            self._in_step = False  # until all have answered
            outcomes = self._gather(_outcome(work, shares, self.rank))
            self._in_step = True
            for outcome in outcomes[: len(shares)]:
                yield outcome.value()

    def serve(self) -> None:
        """On every other rank: work until rank 0 is done, or gone."""
        work = None
        while True:
            job, common, shares = self._listen()
            if job is not None:
                work = _Prepared(self.jobs[job], common)
            elif shares is None:
                return
            else:
                self._gather(_outcome(work, shares, self.rank))

    def dismiss(self) -> None:
        """On rank 0: let the others go. If it leaves in the middle of a round they see that it is gone."""
        if self._in_step:
            self._tell((None, None, None))

    def _tell(self, message: tuple[Any, ...]) -> None:
        if self.size > 1:
            torch.distributed.broadcast_object_list([message], src=0)

    def _listen(self) -> Any:
        message = [None]
        with _as_long_as_rank_0_lives():
            torch.distributed.broadcast_object_list(message, src=0)
        return message[0]

    def _gather(self, outcome: _Outcome | None) -> list[Any]:
        """Everyone's outcome on rank 0."""
        if self.size == 1:
            return [outcome]
        gathered: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with contextlib.nullcontext() if self.rank == 0 else _as_long_as_rank_0_lives():
            torch.distributed.gather_object(outcome, gathered, dst=0)
        return gathered or []


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The processes that torchrun's or DeepSpeed's variables tell of, connected for the time of the block."""
    size = this_process().world_size
    if size == 1:
        yield Ranks()
        return
    with stdout_to_stderr():  # gloo announces its connections on stdout
        # objects alone travel between ranks, so GPUs need no connection of theirs
        torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    ranks = Ranks(torch.distributed.get_rank(), size)
    try:
        yield ranks
    finally:
        if ranks.rank == 0:
            ranks.dismiss()
        torch.distributed.destroy_process_group()


class _Prepared:
    """A job's work, prepared when the first piece comes."""

    def __init__(self, prepare: Callable[..., Work], common: tuple[Any, ...]):
        self._prepare, self._common = prepare, common
        self._work: Work | None = None

    def __call__(self, piece: Any) -> Any:
        if self._work is None:
            self._work = self._prepare(*self._common)
        return self._work(piece)


class _Outcome:
    """A result, or what went wrong in a form that travels."""

    def __init__(self, result: Any = None, error: tuple[type[Exception], str] | None = None):
        self._result, self._error = result, error

    def value(self) -> Any:
        if self._error is not None:
            kind, text = self._error
            raise kind(text)
        return self._result


def _outcome(work: Any, shares: Sequence[Any], rank: int) -> _Outcome | None:
    """This rank's part of a round; the last round may have none for it."""
    if rank >= len(shares):
        return None
    try:
        return _Outcome(work(shares[rank]))
    except InputError as error:
        return _Outcome(error=(InputError, str(error)))
    except IFGuideError as error:
        return _Outcome(error=(type(error), str(error)))
    except Exception:
        if rank == 0:
            raise  # with its own type and traceback; the others see that rank 0 is gone
        return _Outcome(error=(RuntimeError, f"on rank {rank}:\n{traceback.format_exc()}"))


@contextlib.contextmanager
def _as_long_as_rank_0_lives() -> Iterator[None]:
    """Rank 0 says why it left; the others have nothing to add."""
    try:
        yield
    except RuntimeError:
        raise SystemExit(1) from None
