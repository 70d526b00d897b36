"""Run by `scenario_worker` in the processes of a scoring run: the run itself, or a real step on single tokens.

It imports nothing of `tests`: a checkout has a folder of that name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ifguide.data.aligned import load_aligned
from ifguide.data.sidecar import SCORES
from ifguide.influence.direction import save_direction
from ifguide_patch.scoring.direction import make_direction, text_of, weighted_batches
from ifguide_patch.scoring.run import lead_or_follow, prepare, score


def run(neox_args: Any, probe: bool) -> Any:
    """What `score` returns; with ``probe`` `steps`, of the scores that are there; None at processes that follow."""
    if not probe:
        return score(neox_args)
    replica, model, setup = prepare(neox_args)
    return lead_or_follow(replica, model, lambda: steps(neox_args, replica, model, setup))


def steps(neox_args: Any, replica: Any, model: Any, setup: Any) -> list[dict[str, float]]:
    """Of the two tokens with the highest scores and the two with the lowest: ``score``, and ``margin``, by how much a
    step of length ε down the token's preconditioned gradient raises the queries' margin, divided by ε."""
    windows = setup.windows.whole()
    scores = np.array(load_aligned(neox_args.score_output, windows.dataset, SCORES).values)
    order = np.argsort(-scores)
    found = []
    for place in [*order[:2], *order[-2:]]:
        window = int(np.searchsorted(windows.targets, place, side="right")) - 1
        batch = windows.batch(np.array([window]))
        weights = torch.zeros(batch.inputs.shape)
        weights[0, int(torch.nonzero(batch.labelled[0])[0]) + int(place - windows.targets[window])] = 1.0
        step = make_direction(replica, model, setup, [(text_of(batch), weights)])
        prefix = f"{neox_args.score_output}-step-{replica.number}-{place}"
        save_direction(prefix, step, {})
        command = ("load_direction", f"{prefix}.direction.safetensors", 1e-3)
        replica.tell(command)
        model.load_direction(*command[1:])
        rise = 0.0
        for text, shares in weighted_batches(setup.behaviour.toxic, setup.behaviour.safe, setup.batch_tokens):
            replica.tell(("scores", text))
            # the loss of the queries along the step; a step down it is minus that, a log-likelihood minus again
            rise += float((model.scores(text) * shares).sum())
        found.append({"score": float(scores[place]), "margin": rise})
    return found
