"""Leaving out the best: how far does the margin fall when the highest-ranked tokens leave the loss?

For each ranking and each share f of the training tokens, the run is trained again without the f·N tokens that rank
highest. A ranking that knows which tokens teach lowers M the most at each share.

Shapes: F shares, N tokens that training reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.validation.margin import Likelihoods, QuerySets, difference_interval
from ifguide.validation.rankings import Ranking, best
from ifguide.validation.retraining import Retrain, Retrained, Training, base_of

Dropped = Mapping[str, Sequence[NDArray[np.int64]]]
"""Name of a ranking or mask -> the places that each of its retrainings leaves out."""


def dropped_by(
    rankings: Sequence[Ranking], places: tuple[int, int], shares: Sequence[float], seed: int
) -> dict[str, list[NDArray[np.int64]]]:
    """Name -> for each share the places of the tokens that rank highest, ascending.

    Args:
        places: half-open range of the tokens that training reads.
        shares: ascending.
        seed: decides between equal scores.
    """
    counts = [max(1, int(share * (places[1] - places[0]))) for share in shares]
    found = {}
    for ranking in rankings:
        order = best(ranking, places, counts[-1], seed)
        found[ranking.name] = [np.sort(order[:count]) for count in counts]
    return found


def trainings_of(dropped: Dropped, seeds: Sequence[int]) -> list[Training]:
    """The base run and one retraining for each name and share, for each seed."""
    return [
        one
        for seed in seeds
        for one in (
            base_of(seed),
            *(_of_drop(seed, name, places) for name, some in dropped.items() for places in some),
        )
    ]


def run_topk(
    dropped: Dropped, num_tokens: int, seeds: Sequence[int], queries: QuerySets, retrain: Retrain
) -> dict[str, Any]:
    """Retrain without each set of ``dropped``.

    Args:
        num_tokens: that training reads; shares are of these.
        seeds: of training.

    Returns:
        ``rankings``: name -> one point a set, with ``share``, ``tokens``, ``change`` (M without them - M_0, mean over
        seeds), ``change_by_seed``, ``intervals`` (of each seed, 95 % over queries), and the changes of mean l(toxic)
        and mean l(safe); ``base``[S] margins; ``seconds`` of all trainings.
    """
    trained = retrain(trainings_of(dropped, seeds))
    base = {seed: trained[base_of(seed).name].likelihoods for seed in seeds}
    return {
        "rankings": {
            name: [_point(name, places, num_tokens, base, queries, trained) for places in some]
            for name, some in dropped.items()
        },
        "base": [one.margin(queries) for one in base.values()],
        "seconds": round(sum(one.seconds for one in trained.values()), 2),
    }


def _point(
    name: str,
    places: NDArray[np.int64],
    num_tokens: int,
    base: Mapping[int, Likelihoods],
    queries: QuerySets,
    trained: Mapping[str, Retrained],
) -> dict[str, Any]:
    after = {seed: trained[_of_drop(seed, name, places).name].likelihoods for seed in base}
    changes = [after[seed].margin(queries) - base[seed].margin(queries) for seed in base]
    toxic, safe = (
        float(np.mean([after[seed].means(queries)[side] - base[seed].means(queries)[side] for seed in base]))
        for side in (0, 1)
    )
    return {
        "tokens": len(places),
        "share": len(places) / num_tokens,
        "change": float(np.mean(changes)),
        "change_by_seed": changes,
        "intervals": [list(difference_interval(after[seed], base[seed], queries, seed)) for seed in base],
        "change_toxic": toxic,
        "change_safe": safe,
    }


def _of_drop(seed: int, name: str, places: NDArray[np.int64]) -> Training:
    return Training(f"s{seed}-{name}-{len(places)}", seed, places)
