"""Which process of a run this is: the one reader of what a launcher says of it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ifguide.errors import InputError


@dataclass(frozen=True)
class RunProcess:
    """Which process of a run this is.

    Attributes:
        rank: of all processes of the run; 0 leads.
        world_size: how many there are.
        local_rank: of those on this machine, which is also the number of its GPU; None without a launcher.
        local_size: how many of them are on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int | None = None
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0


def this_process() -> RunProcess:
    """What the variables of torchrun and of DeepSpeed's launcher say; a run of one process where there are none.

    Raises:
        InputError: RANK and WORLD_SIZE do not go together.
    """
    rank, size = _variable("RANK") or "0", _variable("WORLD_SIZE") or "1"
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise InputError(f"RANK={rank} and WORLD_SIZE={size} in the environment: rank must be below world size")
    local_rank = _variable("LOCAL_RANK")
    # torchrun and DeepSpeed name it differently
    local_size = _variable("LOCAL_WORLD_SIZE") or _variable("LOCAL_SIZE") or size
    for name, value in (("LOCAL_RANK", local_rank or "0"), ("LOCAL_WORLD_SIZE", local_size)):
        if not value.isdecimal():
            raise InputError(f"{name}={value} in the environment: must be a number")
    return RunProcess(int(rank), int(size), None if local_rank is None else int(local_rank), int(local_size))


def require_one_process(why: str, what: str, *, launched: bool = False) -> None:
    """Refuse to be one of several processes where one alone must do the work.

    Args:
        why: what is wrong with several, after "and".
        what: to run once instead.
        launched: refuse only what torchrun or DeepSpeed's launcher started, which set LOCAL_RANK too; the scheduler of
            a cluster may set WORLD_SIZE alone.

    Raises:
        InputError: WORLD_SIZE says that this is one of several.
    """
    size = _variable("WORLD_SIZE") or "1"
    if not size.isdecimal() or int(size) < 2 or (launched and _variable("LOCAL_RANK") is None):
        return
    raise InputError(
        f"this is one of {size} processes (WORLD_SIZE), and {why}; run {what} once, without torchrun (where something "
        "else sets WORLD_SIZE, unset it)"
    )


def _variable(name: str) -> str | None:
    return os.environ.get(name) or None
