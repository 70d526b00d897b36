"""The training loop on a DeepSpeed engine: steps of an objective, validation, logs, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from ifguide.data.text.tokenizers import Tokenizer
from ifguide.engine.checkpoint import save_checkpoint
from ifguide.engine.datasets import PackedData
from ifguide.engine.deepspeed_engine import clips_itself
from ifguide.engine.packing import stack
from ifguide.engine.pairs.reading import Pairs
from ifguide.engine.schedule import learning_rate, saves_at
from ifguide.engine.settings import TrainSettings
from ifguide.engine.train_log import TrainingLog
from ifguide.errors import NumericsError
from ifguide.objectives.base import Batch, Objective
from ifguide.objectives.cross_entropy import masked_sums, token_losses
from ifguide.system.run_process import this_process


class Trainer:
    """One run, from ``first_iteration`` to the end.

    Sample s of iteration i (from 1) is ``train[(i - 1) * batch + s]``: the data position is a function of
    the iteration, and the processes share a batch in equal consecutive parts, whatever their number. Pairs are dealt
    out in the same way, as many of them as samples.
    """

    def __init__(
        self,
        engine: Any,
        settings: TrainSettings,
        data: PackedData,
        tokenizer: Tokenizer,
        log: TrainingLog,
        *,
        train_iters: int,
        objective: Objective,
        order: dict[str, int],
        pairs: Pairs | None = None,
    ):
        self.engine, self.settings, self.data, self.tokenizer, self.log = engine, settings, data, tokenizer, log
        self.train_iters, self.objective, self.order = train_iters, objective, order
        self.pairs = pairs
        self.rank = this_process().rank
        self.vocab_size = engine.module.config.vocab_size
        self._sums = torch.zeros(objective.num_sums, dtype=torch.float64, device=engine.device)

    def run(self, first_iteration: int) -> None:
        """Train, validate, log and save until the last iteration (or ``exit_interval``).

        Raises:
            NumericsError: the loss is no longer finite.
        """
        settings = self.settings
        logged_at, logged_iteration = time.monotonic(), first_iteration - 1
        for iteration in range(first_iteration, self.train_iters + 1):
            grad_norm = self._step(iteration)
            last = iteration == self.train_iters
            leaving = bool(settings.exit_interval) and iteration % settings.exit_interval == 0
            folder = settings.save if leaving or saves_at(settings, self.train_iters, iteration) else None
            # an interval ends at a checkpoint, so that a continued run logs what the uninterrupted one does
            if iteration % settings.log_interval == 0 or last or folder:
                values = self._collect(iteration)
                seconds, steps = time.monotonic() - logged_at, iteration - logged_iteration
                values |= {
                    "lr": self._learning_rate(iteration),
                    "grad_norm": grad_norm,
                    "tokens_per_second": steps * settings.batch * settings.seq_length / seconds,
                }
                self.log.iteration(values, seconds / steps * (self.train_iters - iteration))
                logged_at, logged_iteration = time.monotonic(), iteration
            paused_at = time.monotonic()
            if settings.eval_iters and (iteration % settings.eval_interval == 0 or last):
                self.validate("valid", iteration)
            if folder:
                keep_last = settings.keep_last_n_checkpoints
                save_checkpoint(self.engine, self.tokenizer, folder, iteration, self.order, keep_last, self.objective)
            logged_at += time.monotonic() - paused_at  # validating and saving are not training
            if leaving and not last:
                self.log.say(f"exit_interval {settings.exit_interval}: leaving at iteration {iteration}")
                return
        if settings.eval_iters:
            self.validate("test", self.train_iters)

    def _step(self, iteration: int) -> float:
        """One optimizer step; returns the gradient's norm before clipping."""
        settings, engine = self.settings, self.engine
        engine.train()
        if settings.hidden_dropout or settings.attention_dropout or settings.keys.lora_dropout:
            # seeded per iteration and process: a continued run draws what the uninterrupted one would
            torch.manual_seed((settings.seed * 1_000_003 + iteration) * 4096 + self.rank)
        grad_norm: Tensor | float | None = None
        batches = list(self._batches(iteration))
        self.objective.begin(batches, iteration)
        moves = iteration > self.objective.warmup_iters
        for batch in batches:
            if not moves:
                with torch.no_grad():
                    self._sums += self.objective.loss(engine.module, batch, iteration)[1]
                continue
            loss, sums = self.objective.loss(engine, batch, iteration)
            self._sums += sums
            engine.backward(loss)
            if engine.is_gradient_accumulation_boundary():
                grad_norm = self._before_update(iteration)
            engine.step()
        self.objective.finish(iteration)
        if grad_norm is None and moves:
            grad_norm = engine.get_global_grad_norm()
        return float(grad_norm or 0.0)

    def _before_update(self, iteration: int) -> Tensor | None:
        """Set the learning rate, and clip where DeepSpeed would not report the norm."""
        rate = self._learning_rate(iteration)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        if not clips_itself(self.settings):
            return None
        limit = self.settings.gradient_clipping or math.inf
        return torch.nn.utils.clip_grad_norm_(self.engine.module.parameters(), limit)

    def _learning_rate(self, iteration: int) -> float:
        """The schedule begins where the model begins to move; 0 before."""
        warmup = self.objective.warmup_iters
        if iteration <= warmup:
            return 0.0
        return learning_rate(self.settings, self.train_iters - warmup, iteration - warmup)

    def _batches(self, iteration: int) -> Iterator[Batch]:
        """This process's micro-batches of ``iteration``."""
        batch, micro_batch = self.settings.batch, self.settings.micro_batch
        share = batch // self.settings.world_size
        begin = (iteration - 1) * batch + self.rank * share
        for first in range(begin, begin + share, micro_batch):
            samples = [self.data.train[index] for index in range(first, first + micro_batch)]
            text = stack(samples, self.vocab_size).to(self.engine.device)
            if self.pairs is None:
                yield Batch(text)
            else:
                numbers = [self.pairs.number(place) for place in range(first, first + micro_batch)]
                yield Batch(text, self.pairs.batch(numbers).to(self.engine.device))

    def _collect(self, iteration: int) -> dict[str, Any]:
        """The interval's numbers over all micro-batches and processes, starting a new interval."""
        torch.distributed.all_reduce(self._sums)
        values = self.objective.report(self._sums)
        self._sums.zero_()
        if not all(map(math.isfinite, values.values())):
            raise NumericsError(
                f"the loss is not finite at iteration {iteration} "
                f"({', '.join(f'{name} {value}' for name, value in values.items())}): "
                "lower optimizer.params.lr or penalty_lambda, or use penalty_form clipped"
            )
        return {"iteration": iteration, **self.objective.logged(values)}

    @torch.no_grad()
    def validate(self, split: str, iteration: int) -> None:
        """Log the plain cross-entropy of at most ``eval_iters`` batches of ``split``, each token once."""
        dataset = getattr(self.data, split)
        if dataset is None:
            return
        settings = self.settings
        self.engine.eval()
        count = min(len(dataset), settings.eval_iters * settings.batch)
        sums = torch.zeros(2, dtype=torch.float64, device=self.engine.device)
        mine = range(self.rank, count, settings.world_size)
        for first in range(0, len(mine), settings.micro_batch):
            samples = [dataset[index] for index in mine[first : first + settings.micro_batch]]
            batch = stack(samples, self.vocab_size).to(self.engine.device)
            sums += masked_sums(token_losses(self.engine.module, batch), batch.loss_mask)
        torch.distributed.all_reduce(sums)
        total, tokens = sums.tolist()
        loss = total / max(tokens, 1.0)
        self.log.validation(
            {
                "iteration": iteration,
                "split": split,
                "lm_loss": loss,
                "perplexity": math.exp(min(loss, 700.0)),
                "tokens": int(tokens),
            }
        )
