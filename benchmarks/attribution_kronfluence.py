"""kronfluence beside this project: its own query phase and its own scoring phase, each timed by itself.

Both phases are kronfluence's public pieces with loaders that look at the clock. What surrounds the batches (setting
modes, collecting garbage, copying factors) is left out of the scoring phase, for a long run does it once.

Shapes: B windows, T positions, O outputs, I inputs with the bias column, Q queries.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from kronfluence.analyzer import prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.module import TrackedModule
from kronfluence.score.dot_product import compute_dot_products_with_loader
from kronfluence.score.pairwise import (
    compute_pairwise_query_aggregated_scores_with_loaders,
    compute_pairwise_scores_with_loaders,
)
from kronfluence.task import Task
from kronfluence.utils.constants import ACCUMULATED_PRECONDITIONED_GRADIENT_NAME, ALL_MODULE_NAME
from kronfluence.utils.state import State
from torch import Tensor
from torch.nn import functional

from ifguide.influence.batches import NO_LABEL, Batch, collate
from ifguide.influence.curvature.store import Factors
from ifguide.influence.direction import Direction
from ifguide.influence.queries import Query
from ifguide.models.tracked import ScoredModel


@dataclass(frozen=True)
class QueryPhase:
    """How long some queries took.

    Attributes:
        seconds: of each batch, the first (which warms up) left out.
        padded_tokens: of each of those batches.
        once: seconds of what does not depend on the number of queries.
        direction: what it made of all of them, in its own layout.
    """

    seconds: list[float]
    padded_tokens: list[int]
    once: float
    direction: Direction

    def scaled(self, padded_tokens: int) -> float:
        """Seconds for queries of that many padded tokens."""
        rate = statistics.median(s / tokens for s, tokens in zip(self.seconds, self.padded_tokens, strict=True))
        return self.once + rate * padded_tokens


class Kronfluence:
    """A model under kronfluence. ``model`` must not be used for anything else afterwards.

    Args:
        factors: for its query phase.

    Attributes:
        scoring_seconds: of every call of `scores`, from the first batch handed over to the last one done.
    """

    def __init__(self, model: ScoredModel, factors: Factors | None, synchronize: Callable[[], None]):
        self._task = _LanguageModelling(list(model.tracked))
        self._model = prepare_model(model.model, self._task).to(model.device)
        self._state = State(cpu=model.device.type == "cpu")
        self._synchronize = synchronize
        self._arguments = FactorArguments(strategy="ekfac")
        self._factors = {} if factors is None else _own_layout(factors)
        self._layers: dict[str, Any] = {
            module.name: module for module in self._model.modules() if isinstance(module, TrackedModule)
        }
        self.scoring_seconds: list[float] = []

    def query_phase(self, batches: Sequence[Batch], train: Batch, aggregate: bool = True) -> QueryPhase:
        """Gradients of the queries' summed loss, preconditioned; then a pass over ``train`` that is not timed.

        Args:
            aggregate: one gradient for all queries; else one for each, as kronfluence does unless told.
        """
        queries, training = _Loader(batches, self._synchronize), _Loader([train], self._synchronize)
        found: Direction = {}
        training.on_start = lambda: found.update(self._stored())
        run = (
            compute_pairwise_query_aggregated_scores_with_loaders if aggregate else compute_pairwise_scores_with_loaders
        )
        started = time.perf_counter()
        self._call(
            run,
            loaded_factors=self._factors,
            query_loader=queries,
            per_device_query_batch_size=len(batches[0].inputs),
            train_loader=training,
            score_args=self._score_arguments(aggregate),
            tracked_module_names=None,
        )
        once = queries.times[0] - started
        if aggregate:
            ends = [*queries.times[1:], queries.ended]
            once += training.times[0] - queries.ended  # the sum is preconditioned
        else:
            ends = training.times  # every batch of queries gets a pass over the training data of its own
        seconds = [end - begin for begin, end in zip(queries.times, ends, strict=True)]
        sizes = [batch.inputs.numel() for batch in batches]
        return QueryPhase(seconds[1:], sizes[1:], once, found)

    def use(self, direction: Direction) -> None:
        """Score along ``direction`` [O, I] of each layer."""
        self._direction = {name: matrix[None].contiguous() for name, matrix in direction.items()}
        arguments = self._score_arguments(aggregate=True)
        for layer in self._layers.values():
            layer.update_factor_args(self._arguments)
            layer.update_score_args(arguments)

    def scores(self, batch: Batch) -> Tensor:
        """Per-token scores [B, T]: kronfluence's scoring phase over one batch."""
        # the phase ends by forgetting the direction
        for name, layer in self._layers.items():
            layer.storage[ACCUMULATED_PRECONDITIONED_GRADIENT_NAME] = self._direction[name]
        training = _Loader([batch], self._synchronize)
        found = self._call(
            compute_dot_products_with_loader,
            train_loader=training,
            score_args=self._score_arguments(aggregate=True),
            tracked_module_names=list(self._layers),
        )
        self.scoring_seconds.append(training.ended - training.times[0])
        return found[ALL_MODULE_NAME][0]

    def _call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # kronfluence's use of an old torch name
            if function is compute_dot_products_with_loader:
                arguments["scaler"] = torch.cuda.amp.GradScaler(enabled=False)
            return function(
                model=self._model,
                task=self._task,
                state=self._state,
                factor_args=self._arguments,
                disable_tqdm=True,
                **arguments,
            )

    def _score_arguments(self, aggregate: bool) -> ScoreArguments:
        return ScoreArguments(
            damping_factor=None,  # a tenth of the mean eigenvalue, as here
            compute_per_token_scores=True,
            aggregate_query_gradients=aggregate,
        )

    def _stored(self) -> Direction:
        """Sum of the preconditioned gradients that it is about to score along."""
        key = ACCUMULATED_PRECONDITIONED_GRADIENT_NAME
        return {name: layer.storage[key].sum(dim=0) for name, layer in self._layers.items()}


def published_batches(queries: Sequence[Query], size: int, length: int) -> list[Batch]:
    """Batches of ``size``, every query padded to ``length``, as IF-Guide's own code feeds them."""
    batches = tight_batches(queries, size)
    return [_widen(batch, length) for batch in batches]


def tight_batches(queries: Sequence[Query], size: int) -> list[Batch]:
    """Batches of ``size`` of similar length, padded to the longest: the least work that kronfluence can be given."""
    ordered = sorted(queries, key=lambda query: len(query.inputs))
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [collate([q.inputs for q in group], [q.labels for q in group]) for group in groups]


def spread(batches: Sequence[Batch], count: int) -> list[Batch]:
    """``count`` of them, from the shortest to the longest."""
    places = [round(place * (len(batches) - 1) / max(1, count - 1)) for place in range(count)]
    return [batches[place] for place in places]


def _own_layout(factors: Factors) -> dict[str, dict[str, Tensor]]:
    """EK-FAC factors as kronfluence loads them."""
    names = {"U_A": "activation_eigenvectors", "U_G": "gradient_eigenvectors", "Lambda": "lambda_matrix"}
    found = {theirs: {name: layer[ours] for name, layer in factors.layers.items()} for ours, theirs in names.items()}
    return {**found, "num_lambda_processed": dict.fromkeys(factors.layers, torch.ones(1, dtype=torch.int64))}


def _widen(batch: Batch, length: int) -> Batch:
    more = max(0, length - batch.inputs.shape[1])
    return Batch(
        functional.pad(batch.inputs, (0, more)),
        functional.pad(batch.labels, (0, more), value=NO_LABEL),
        functional.pad(batch.real, (0, more)),
    )


class _LanguageModelling(Task):
    """Summed cross-entropy of the labels, from the model's own output."""

    def __init__(self, tracked: list[str]):
        super().__init__()
        self._tracked = tracked

    def compute_train_loss(self, batch: dict[str, Tensor], model: Any, sample: bool = False) -> Tensor:
        logits = model(batch["inputs"], use_cache=False).logits
        return functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=NO_LABEL, reduction="sum"
        )

    def compute_measurement(self, batch: dict[str, Tensor], model: Any) -> Tensor:
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        return self._tracked


class _Loader:
    """What kronfluence takes for a data loader: batches, and when each was asked for.

    Attributes:
        times: when each batch was handed over.
        ended: when the one after the last was asked for.
    """

    def __init__(self, batches: Sequence[Batch], synchronize: Callable[[], None]):
        self._batches = batches
        self._synchronize = synchronize
        self.dataset = [row for batch in batches for row in batch.inputs]
        self.times: list[float] = []
        self.ended = 0.0
        self.on_start: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for number, batch in enumerate(self._batches):
            self._synchronize()
            self.times.append(time.perf_counter())
            if not number:
                self.on_start()
            yield {"inputs": batch.inputs, "labels": batch.labels}
        self._synchronize()
        self.ended = time.perf_counter()
