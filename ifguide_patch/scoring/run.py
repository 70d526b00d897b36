"""One process of ``deepy.py score.py``: GPT-NeoX is set up as for training, then every token is scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ifguide.data.fingerprint import fingerprint
from ifguide.influence.batches import Batch
from ifguide.influence.direction import Direction, direction_paths, load_direction, save_direction
from ifguide.influence.job import Inputs, Job
from ifguide.influence.options import Method, Options
from ifguide.influence.score import run as score_shards
from ifguide.influence.shards import Share, found_or_made
from ifguide_patch.scoring.direction import followers_actions, make_direction, text_of, weighted_batches
from ifguide_patch.scoring.model import ParallelModel
from ifguide_patch.scoring.replica import Replica
from ifguide_patch.scoring.setup import GivenDirection, Setup, read_setup

Result = TypeVar("Result")


def main() -> None:
    """As the checkout's ``train.py``."""
    from megatron.neox_arguments import NeoXArgs

    neox_args = NeoXArgs.consume_neox_args()
    neox_args.configure_distributed_args()
    neox_args.build_tokenizer()
    score(neox_args)


def score(neox_args: Any) -> dict[str, Any] | None:
    """Score as the keys of ``neox_args`` say; what `ifguide.influence.score.score` returns, None at who follows.

    Raises:
        InputError: files that cannot be used.
        NumericsError: a gradient, a direction or a score is not finite.
    """
    started = time.monotonic()
    replica, model, setup = prepare(neox_args)
    return lead_or_follow(replica, model, lambda: _lead(replica, model, setup, started))


def prepare(neox_args: Any) -> tuple[Replica, ParallelModel, Setup]:
    """GPT-NeoX's model with the weights of the checkpoint, and what is scored.

    Raises:
        InputError: files that cannot be used.
    """
    from megatron import training

    # first, for GPT-NeoX starts anew where it finds no checkpoint
    setup = read_setup(vars(neox_args))
    training.initialize_megatron(neox_args=neox_args)
    engine, *_ = training.setup_model_and_optimizer(neox_args=neox_args, use_cache=False, iteration=neox_args.iteration)
    replica = Replica.join(last_stage=not neox_args.is_pipe_parallel or engine.is_last_stage())
    micro_tokens = neox_args.train_micro_batch_size_per_gpu * neox_args.seq_length
    model = ParallelModel(engine, neox_args, replica, setup.architecture, setup.family, micro_tokens)
    return replica, model, setup


def lead_or_follow(replica: Replica, model: ParallelModel, work: Callable[[], Result]) -> Result | None:
    """As the leader ``work``, which ends the others; as anybody else what it tells."""
    if not replica.leads:
        replica.follow(followers_actions(replica, model))
        return None
    try:
        return work()
    finally:
        replica.tell(None)


class _Pass:
    """`ifguide.influence.passes.method.Pass` of a leader: all of its replica compute each batch."""

    def __init__(self, replica: Replica, model: ParallelModel):
        self._replica, self._model = replica, model

    def scores(self, batch: Batch) -> Tensor:
        """(M2) ``s``[1, B, T] of ``batch``, 0 where there is no label."""
        text = text_of(batch)
        self._replica.tell(("scores", text))
        return (self._model.scores(text) * batch.labelled)[None]

    def first_bad_layer(self, batch: Batch) -> str:
        """Where the first number of ``batch`` that is not finite appears: the stages look at losses alone."""
        return "the losses of one of the two sides"


def _lead(replica: Replica, model: ParallelModel, setup: Setup, started: float) -> dict[str, Any] | None:
    keys = setup.config
    output = str(keys["score_output"])
    about = replica.first_leader_says(setup.about)
    # None: it is saved beside the scores, by the first leader
    path = replica.first_leader_says(lambda: _direction_file(replica, model, setup, output, about))
    command = ("load_direction", path, keys["score_step"])
    replica.tell(command)
    model.load_direction(*command[1:])
    method = Method("loss-term", "difference", step=keys["score_step"])
    job = _job(replica, model, setup, about, method, keys["score_shard_tokens"])
    options = Options(
        method, setup.damping, batch_size=keys["score_batch_size"], shard_tokens=keys["score_shard_tokens"]
    )
    factors = keys["score_factors"] or setup.checkpoint.folder
    inputs = Inputs(
        setup.checkpoint.folder, setup.windows.dataset.prefix, factors, [setup.behaviour.files], output,
        keys["score_eod_token"],
    )  # fmt: skip
    result = score_shards(job, inputs, options, started, False, Share(replica.number, replica.count))
    if replica.number == 0:
        _say(result, output)
    return result


def _direction_file(replica: Replica, model: ParallelModel, setup: Setup, output: str, about: dict[str, Any]) -> str:
    """Where the direction lies; made and saved if it is not there yet."""
    if isinstance(setup.behaviour, GivenDirection):
        return str(direction_paths(setup.behaviour.prefix)[0].absolute())

    def make() -> Direction:
        queries = weighted_batches(setup.behaviour.toxic, setup.behaviour.safe, setup.batch_tokens)
        direction = make_direction(replica, model, setup, queries)
        save_direction(output, direction, about)
        return direction

    found_or_made(Path(f"{output}.lock"), lambda: load_direction(output, about), make)
    return str(direction_paths(output)[0].absolute())


def _job(
    replica: Replica, model: ParallelModel, setup: Setup, about: dict[str, Any], method: Method, shard_tokens: int
) -> Job:
    frame = {"data": fingerprint(setup.windows.dataset, progress=False), **setup.frame}
    # of a model, the shards ask no more than these
    stand_in = SimpleNamespace(eod=setup.frame["eod"], device=torch.device("cpu"))
    return Job(
        cast(Any, stand_in),
        setup.windows,
        [setup.behaviour],
        _Pass(replica, model),
        method,
        setup.batch_tokens,
        setup.documents,
        [{**about, **frame, "shard_tokens": shard_tokens, **method.record()}],
        [],
        shard_tokens,
    )


def _say(result: dict[str, Any], output: str) -> None:
    if not result["finished"]:
        print(f"{result['missing_tokens']} tokens are left to other calls", flush=True)
        return
    scores = result["outputs"][0]["scores"]
    print(
        f"scores: {output}: {result['tokens']} tokens in {result['documents']} documents, {result['scored_tokens']} by "
        f"this replica, from {scores['min']:.3g} to {scores['max']:.3g}, {scores['positive_share']:.0%} positive",
        flush=True,
    )
