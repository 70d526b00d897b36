"""Jobs on several ranks, under torchrun: what rank 0 got goes to OUTPUT, the rest to the terminal.

python ranks_worker.py OUTPUT
"""

from __future__ import annotations

import json
import sys

from ifguide.errors import ConfigError, NumericsError, tell
from ifguide.system.ranks import joined_ranks


def main(output: str) -> None:
    with joined_ranks() as ranks:

        def multiplying(factor: int):
            return lambda piece: [piece * factor, ranks.rank]

        def refusing(*places: int):
            def work(piece: int):
                if piece in places:
                    raise NumericsError(f"piece {piece} is not finite")

            return work

        def unprepared():
            if ranks.rank == 1:
                raise ConfigError(["no model", "no data"])
            return int

        def broken():
            return lambda piece: 1 // (1 - ranks.rank)

        ranks.jobs |= {"multiply": multiplying, "refuse": refusing, "unprepared": unprepared, "broken": broken}
        if ranks.rank > 0:
            return ranks.serve()
        found = {
            "multiplied": [list(ranks.map("multiply", (n,), range(count))) for n, count in ((2, 5), (3, 1), (5, 0))]
        }
        for job, common in (("refuse", (2, 3)), ("refuse", (3,)), ("unprepared", ()), ("broken", ())):
            try:
                list(ranks.map(job, common, range(4)))
            except Exception as error:
                found[f"{job} {common}"] = [type(error).__name__, str(error)]
        found["again"] = list(ranks.map("multiply", (1,), range(2)))
        with open(output, "w") as stream:
            json.dump(found, stream)
        next(ranks.map("multiply", (1,), range(9)))
        raise NumericsError("rank 0 has enough")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except NumericsError as error:
        tell("worker", error)
        sys.exit(2)
