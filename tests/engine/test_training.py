"""The loop alone, on an engine that counts: which samples come, when it clips, saves, leaves and gives up."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ifguide.engine import training
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.schedule import learning_rate
from ifguide.engine.settings import TrainSettings, resolve
from ifguide.engine.training import Trainer
from ifguide.errors import NumericsError
from ifguide.objectives.base import Batch, Objective
from tests.engine.tiny import MODEL

LENGTH = 4


class Samples:
    """Sample i is ``LENGTH`` times the token i; its first i % LENGTH labels do not count."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = torch.full((LENGTH,), index)
        mask = (torch.arange(LENGTH) >= index % LENGTH).float()
        return {"tokens": tokens, "labels": tokens, "loss_mask": mask, "codes": tokens * 0}


class Module(torch.nn.Module):
    """One weight of 3; its logits say that token v has the probability of v + 1 in 1 + 2 + ... + V."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(3.0))
        self.config = SimpleNamespace(vocab_size=300)

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        logits = torch.log(torch.arange(1.0, 301.0)).expand(*input_ids.shape, 300)
        return SimpleNamespace(logits=logits + 0 * self.weight)


class Engine:
    """What the loop asks of DeepSpeed, with plain gradient descent."""

    device = torch.device("cpu")

    def __init__(self, accumulation: int):
        self.module, self.accumulation, self.turn = Module(), accumulation, 0
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.0)
        self.rates: list[float] = []

    def __call__(self, **inputs: Any) -> Any:
        return self.module(**inputs)

    def train(self) -> None:
        self.module.train()

    def eval(self) -> None:
        self.module.eval()

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()

    def is_gradient_accumulation_boundary(self) -> bool:
        return self.turn % self.accumulation == self.accumulation - 1

    def step(self) -> None:
        if self.is_gradient_accumulation_boundary():
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.turn += 1


class Recording(Objective):
    """The weight squared; keeps the samples that it saw. Logs their number."""

    name, num_sums = "recording", 1

    def __init__(self, nan_at: int | None = None):
        self.seen: list[tuple[int, list[int]]] = []
        self.drawn: list[float] = []
        self.nan_at = nan_at

    def loss(self, model: Any, batch: Batch, iteration: int) -> tuple[Tensor, Tensor]:
        tokens = batch.text.tokens
        self.seen.append((iteration, tokens[:, 0].tolist()))
        self.drawn.append(float(torch.rand(())))
        count = math.nan if iteration == self.nan_at else float(len(tokens))
        return model.module.weight**2, torch.tensor([count], dtype=torch.float64)

    def report(self, sums: Tensor) -> dict[str, float]:
        return {"samples": float(sums)}


class Log:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.iterations: list[dict[str, Any]] = []
        self.validations: list[dict[str, Any]] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def iteration(self, values: dict[str, Any], seconds_left: float) -> None:
        self.iterations.append(values)

    def validation(self, values: dict[str, Any]) -> None:
        self.validations.append(values)


class Run:
    """A trainer and all that it talks to."""

    def __init__(self, rank: int = 0, nan_at: int | None = None, valid: int = 0, **values: Any):
        given = {**MODEL, "data_path": "data", "train_iters": 3, "eval_iters": 0, **values}
        self.settings: TrainSettings = resolve(TrainConfig(**given))
        self.engine, self.log = Engine(self.settings.accumulation), Log()
        self.objective = Recording(nan_at)
        valid_samples = Samples(valid) if valid else None
        data = SimpleNamespace(train=Samples(200), valid=valid_samples, test=None)
        iters = self.settings.train_iters
        self.trainer = Trainer(
            self.engine, self.settings, data, None, self.log,  # type: ignore[arg-type]
            train_iters=iters or 0, objective=self.objective, order={},
        )  # fmt: skip
        self.trainer.rank = rank

    def start(self, first: int = 1) -> Run:
        self.trainer.run(first)
        return self


@pytest.fixture(autouse=True)
def _group(process_group: None) -> None:
    """Sums are added up over the one process that there is."""


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_processes_share_each_batch(world: int) -> None:
    """Whatever their number: sample s of iteration i is (i - 1) B + s, each comes once, in its order."""
    runs = [Run(rank, num_gpus=world, train_micro_batch_size_per_gpu=2).start() for rank in range(world)]
    for iteration in (1, 2, 3):
        found = [sample for run in runs for at, some in run.objective.seen if at == iteration for sample in some]
        assert found == list(range(8 * (iteration - 1), 8 * iteration))
    assert all(len(some) == 2 for run in runs for _, some in run.objective.seen)


def test_a_continued_run_takes_up_the_samples_and_the_dice() -> None:
    whole, rest = (Run(hidden_dropout=0.1).start(first) for first in (1, 3))
    assert rest.objective.seen == [entry for entry in whole.objective.seen if entry[0] == 3]
    assert rest.objective.drawn == whole.objective.drawn[-1:]
    assert len(set(whole.objective.drawn)) == 3
    other = Run(rank=1, num_gpus=2, hidden_dropout=0.1).start()
    assert not set(other.objective.drawn) & set(whole.objective.drawn), "no two processes drop the same"


def test_a_step_is_an_average_clipped_at_the_rate_of_its_iteration() -> None:
    """w² has the gradient 2w = 6: clipped to 0.5, whatever the accumulation; the norm is told as it was."""
    for micro in (8, 2):
        run = Run(gradient_clipping=0.5, train_micro_batch_size_per_gpu=micro).start()
        rates = [learning_rate(run.settings, 3, iteration) for iteration in (1, 2, 3)]
        assert run.engine.rates == rates and len(set(rates)) == 3
        assert [row["lr"] for row in run.log.iterations] == rates
        assert run.log.iterations[0]["grad_norm"] == pytest.approx(6.0, rel=1e-6)
        # torch's clipping divides by norm + 1e-6
        assert float(run.engine.module.weight) == pytest.approx(3 - 0.5 * sum(rates), rel=1e-6)


def test_an_interval_starts_anew_and_ends_at_the_last_iteration() -> None:
    run = Run(log_interval=2).start()
    assert [(row["iteration"], row["samples"]) for row in run.log.iterations] == [(2, 16.0), (3, 8.0)]


def test_every_sample_is_validated_once() -> None:
    """5 samples and room for 8: by two processes as by one, the plain cross-entropy of the labels that count."""
    total, count = 0.0, 0
    for index in range(5):
        labels = LENGTH - index % LENGTH
        total -= labels * math.log((index + 1) / (300 * 301 / 2))
        count += labels
    one = Run(valid=5, eval_iters=1, eval_interval=3).start().log.validations
    assert [row["split"] for row in one] == ["valid"], "there is no test set"
    assert (one[0]["iteration"], one[0]["tokens"]) == (3, count)
    assert one[0]["lm_loss"] == pytest.approx(total / count, rel=1e-6)
    assert one[0]["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    shares = [Run(rank, valid=5, eval_iters=1, eval_interval=3, num_gpus=2).start() for rank in (0, 1)]
    rows = [run.log.validations[0] for run in shares]
    assert sum(row["tokens"] for row in rows) == count
    assert sum(row["lm_loss"] * row["tokens"] for row in rows) == pytest.approx(total, rel=1e-6)


def test_no_more_than_eval_iters_batches() -> None:
    (row,) = Run(valid=50, eval_iters=2, eval_interval=3).start().log.validations
    assert row["tokens"] == sum(LENGTH - index % LENGTH for index in range(16))


def test_it_saves_where_it_should_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(training, "save_checkpoint", lambda *given: saved.append(given[3]))
    run = Run(train_iters=9, checkpoint_factor=4, exit_interval=6, save="out", log_interval=100).start()
    assert saved == [4, 6] and run.objective.seen[-1][0] == 6
    # an interval ends at a checkpoint, so that a continued run logs what the uninterrupted one does
    assert [row["iteration"] for row in run.log.iterations] == [4, 6]
    assert run.log.said == ["exit_interval 6: leaving at iteration 6"]
    run.start(7)
    assert saved == [4, 6, 8, 9]


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    run = Run(nan_at=2)
    with pytest.raises(NumericsError, match=r"not finite at iteration 2 \(samples nan\)"):
        run.start()
    assert [row["iteration"] for row in run.log.iterations] == [1]
