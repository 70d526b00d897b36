"""The processes that together hold one copy of the model, and how the one that leads them tells what comes next.

A replica is all tensor-parallel ranks of all pipeline stages of one data-parallel rank. Its leader has the losses (the
last stage's first rank). It reads the data, decides, and is the only one that writes; the others follow its commands.
Commands travel over gloo, so that whoever waits for one waits as long as it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_PATIENCE = timedelta(days=30)


@dataclass(frozen=True, eq=False)
class Replica:
    """One copy of the model, seen by one of its processes.

    Attributes:
        number, count: which replica this is, and of how many.
        rank: tensor-parallel rank.
        ranks: how many there are.
        leads: whether this process is the leader.
    """

    number: int
    count: int
    rank: int
    ranks: int
    leads: bool
    _leader: int
    _group: Any
    _first: int
    _leaders: Any

    @classmethod
    def join(cls, last_stage: bool) -> Replica:
        """Every process of the run calls this once, at the same place."""
        from megatron import mpu
        from torch import distributed

        rank, number = mpu.get_model_parallel_rank(), mpu.get_data_parallel_rank()
        world = distributed.get_world_size()
        everybody = distributed.new_group(list(range(world)), timeout=_PATIENCE, backend="gloo")
        found: list[Any] = [None] * world
        distributed.all_gather_object(found, (number, last_stage and rank == 0), group=everybody)
        leaders = {replica: place for place, (replica, leads) in enumerate(found) if leads}
        groups = {
            replica: distributed.new_group(
                [place for place, (other, _) in enumerate(found) if other == replica],
                timeout=_PATIENCE,
                backend="gloo",
            )
            for replica in sorted(leaders)
        }
        among = distributed.new_group(sorted(leaders.values()), timeout=_PATIENCE, backend="gloo")
        leader = leaders[number]
        return cls(
            number,
            len(leaders),
            rank,
            mpu.get_model_parallel_world_size(),
            leader == distributed.get_rank(),
            leader,
            groups[number],
            leaders[0],
            among,
        )

    def tell(self, command: tuple[Any, ...] | None) -> None:
        """As the leader: what all of the replica do next; None ends `follow`."""
        self._broadcast(command)

    def follow(self, actions: Mapping[str, Callable[..., Any]]) -> None:
        """As anybody else: do what the leader tells, until it ends."""
        while (command := self._broadcast(None)) is not None:
            name, *arguments = command
            actions[name](*arguments)

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every process, at the leader; an empty list elsewhere."""
        from torch import distributed

        found = [None] * distributed.get_world_size(self._group) if self.leads else None
        distributed.gather_object(value, found, dst=self._leader, group=self._group)
        return found or []

    def total(self, *values: float) -> list[float]:
        """The sums of ``values`` over the processes."""
        import torch
        from torch import distributed

        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums, group=self._group)
        return sums.tolist()

    def first_leader_says(self, make: Callable[[], Any]) -> Any:
        """As a leader: what ``make`` gives the leader of replica 0, for all leaders once it is there."""
        from torch import distributed

        said = [make() if self.number == 0 else None]
        distributed.broadcast_object_list(said, src=self._first, group=self._leaders)
        return said[0]

    def _broadcast(self, command: Any) -> Any:
        from torch import distributed

        box = [command]
        distributed.broadcast_object_list(box, src=self._leader, group=self._group)
        return box[0]
