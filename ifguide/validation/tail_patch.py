"""The tail patch: one more optimizer step on some tokens, from where the run stopped.

    L_D = Σ_{j in D} l_j / |D|        ΔM_D = M after the step on L_D - M after a step of zero gradient

The step is the run's own: its optimizer with the moments of its last checkpoint, its weight decay, its clipping.
Moments alone move the weights, so a step of zero gradient is what ΔM is counted from. Learning tokens with s > 0 raises
the margin (M2), so ΔM is held against Σ_{j in D} s_j. l_j is as in (M2): each document alone, after one EOD.

Shapes: K sets, B windows, T positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.errors import ConfigError, InputError, NumericsError
from ifguide.objectives.keys import LM
from ifguide.statistics.resampling import RESAMPLES
from ifguide.system.run_folder import named_tag
from ifguide.validation.lds import judge
from ifguide.validation.margin import QuerySets, log_likelihoods, token_losses
from ifguide.validation.rankings import Ranking, eod_of
from ifguide.validation.run import FinishedRun

_BATCH_TOKENS = 4096


def run_tail_patch(
    run: FinishedRun,
    rankings: Sequence[Ranking],
    sets: Sequence[NDArray[np.int64]],
    queries: QuerySets,
    rate: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    quiet: bool = True,
) -> dict[str, Any]:
    """Take a step on each of ``sets``, each from the last checkpoint, and judge every one of ``rankings``.

    Args:
        rankings: the first is the one that the others are compared with.
        sets: ascending flat places.
        rate: learning rate of the step; None: that of the run's last iteration.
        resamples, seed: of the bootstrap over sets.

    Returns:
        What `ifguide.validation.lds.judge` gives, ``learning_rate``, the margin ``before``, and ``idle``: its change by
        a step of zero gradient.

    Raises:
        InputError: the run has no checkpoint that one process can load, or its last learning rate is 0.
        NumericsError: a loss or a margin is not finite.
    """
    from ifguide.system.progress import Progress

    used = learning_rate_of(run) if rate is None else rate
    with patch_of(run, used) as patch, Progress(len(sets) + 1, "steps", "tail patch", quiet=quiet) as progress:
        before = log_likelihoods(patch.model, queries).margin(queries)
        margins = []
        for places in [np.zeros(0, np.int64), *sets]:
            patch.step(places)
            margins.append(log_likelihoods(patch.model, queries).margin(queries))
            progress.update(1)
    idle, *after = margins
    predictions = {ranking.name: ranking.sums(sets) for ranking in rankings}
    return {
        **judge(predictions, np.array(after) - idle, resamples, seed),
        "learning_rate": used,
        "before": before,
        "idle": idle - before,
    }


def learning_rate_of(run: FinishedRun) -> float:
    """Of its last iteration.

    Raises:
        InputError: it is 0, and no step of it would move anything.
    """
    from ifguide.engine.schedule import learning_rate

    settings = _settings(run)
    rate = learning_rate(settings, run.iterations, run.iterations)
    if rate <= 0:
        raise InputError(
            f"--run {run.folder}: its learning rate had fallen to 0 at the end (lr_decay_style "
            f"{settings.lr_decay_style}, min_lr {settings.min_lr:g}); give --learning-rate, its highest was "
            f"{settings.lr:g}"
        )
    return rate


class Patch:
    """Single steps from the run's last checkpoint."""

    def __init__(self, run: FinishedRun, engine: Any, settings: Any, rate: float):
        from ifguide.influence.windows import cut, resolve_lengths

        self._run, self._engine, self._settings, self._rate = run, engine, settings, rate
        window = engine.module.config.max_position_embeddings
        self._windows = cut(run.tokens, eod_of(run), *resolve_lengths(window, None, None))

    @property
    def model(self) -> Any:
        """As the last step left it."""
        return self._engine.module

    def step(self, places: NDArray[np.int64]) -> None:
        """Weights and moments of the checkpoint, then one step on the mean loss of ``places`` (none: zero gradient).

        Raises:
            InputError: the checkpoint cannot be loaded.
            NumericsError: a loss is not finite.
        """
        import torch

        from ifguide.engine.checkpoint import load_checkpoint
        from ifguide.engine.deepspeed_engine import clips_itself

        engine, settings = self._engine, self._settings
        batch = self._run.batch_tokens // settings.seq_length
        order = {
            "seed": settings.seed,
            "seq_length": settings.seq_length,
            "train_batch_size": batch,
            "train_samples": self._run.iterations * batch,
        }
        load_checkpoint(engine, self._run.folder, False, order, LM)
        for group in engine.optimizer.param_groups:
            group["lr"] = self._rate
        engine.eval()  # a step without dropout: the same for every set
        pieces = (list(self._pieces(places)) if len(places) else []) or [(*self._any(), 0.0)]
        for number, (inputs, labels, share) in enumerate(pieces, 1):
            losses = token_losses(engine.module, inputs, labels)
            loss = losses.sum() * share
            if not torch.isfinite(loss):
                raise NumericsError("the loss of a step is not finite; does the model give finite losses?")
            engine.set_gradient_accumulation_boundary(number == len(pieces))
            engine.backward(loss)
            if number == len(pieces) and clips_itself(settings) and settings.gradient_clipping:
                torch.nn.utils.clip_grad_norm_(engine.module.parameters(), settings.gradient_clipping)
            engine.step()

    def _pieces(self, places: NDArray[np.int64]) -> Iterator[tuple[Any, Any, float]]:
        """(inputs[B, T], labels[B, T], 1 / |D|) of the windows that hold ``places``; only those are labels."""
        from ifguide.influence.batches import NO_LABEL, group_by_length

        windows = self._windows
        ends = windows.targets + windows.scored
        holds = np.searchsorted(places, ends) > np.searchsorted(places, windows.targets)
        if not holds.any():
            return
        some = windows.select(np.flatnonzero(holds))
        wanted = np.zeros(self._run.tokens.num_tokens, bool)
        wanted[places] = True
        # the first token of a document without an EOD before it is no label of anything
        count = int(wanted[some.places(np.arange(len(some)))].sum())
        for group in group_by_length(some.lengths, _BATCH_TOKENS):
            batch = some.batch(group).to(self._engine.device)
            labels = batch.labels.clone()
            labelled = labels[batch.labelled]
            labelled[~_tensor(wanted[some.places(group)], labels)] = NO_LABEL
            labels[batch.labelled] = labelled
            yield batch.inputs, labels, 1.0 / count

    def _any(self) -> tuple[Any, Any]:
        """Some batch, for a gradient of zeros."""
        batch = self._windows.batch(np.array([0])).to(self._engine.device)
        return batch.inputs, batch.labels


@contextlib.contextmanager
def patch_of(run: FinishedRun, rate: float) -> Iterator[Patch]:
    """The run's engine in this process, which DeepSpeed lets train once.

    Raises:
        InputError: the run has no checkpoint that one process can load.
    """
    import torch

    from ifguide.engine.deepspeed_engine import build_engine
    from ifguide.engine.worker import join_processes
    from ifguide.models.loading import load_causal_model
    from ifguide.system.processes import as_only_process

    settings = _settings(run)
    check_checkpoint(run)
    with as_only_process(without_gpu=not torch.cuda.is_available()):
        joined = torch.distributed.is_initialized()
        join_processes()
        try:
            yield Patch(
                run, build_engine(load_causal_model(run.model, torch.float32, "model"), settings), settings, rate
            )
        finally:
            if not joined:
                torch.distributed.destroy_process_group()


def check_checkpoint(run: FinishedRun) -> None:
    """
    Raises:
        InputError: the run has no checkpoint that one process can load, or an older one than its model.
    """
    tag = named_tag(run.folder)
    if tag is None or not (run.folder / tag).is_dir():
        raise InputError(f"--run {run.folder}: its checkpoint is gone, and with it the optimizer's moments")
    stage = (run.keys.get("zero_optimization") or {}).get("stage", 0)
    if (run.keys.get("num_gpus") or 1) > 1 and stage:
        raise ConfigError(
            [
                f"--run {run.folder}: ZeRO stage {stage} on {run.keys['num_gpus']} processes spread its moments, and "
                "the tail patch is one process; take a run of stage 0, or of one process"
            ]
        )


def _settings(run: FinishedRun) -> Any:
    """The run's settings for one process that takes single steps; sets go through in micro-batches of their own."""
    from ifguide.engine.arguments import TrainConfig
    from ifguide.engine.settings import resolve

    alone = {
        "num_gpus": None,
        "train_batch_size": 1,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
    }
    return resolve(TrainConfig(**{**run.keys, **alone, "load": None, "finetune": False}))


def _tensor(values: NDArray[np.bool_], like: Any) -> Any:
    import torch

    return torch.from_numpy(values).to(like.device)
