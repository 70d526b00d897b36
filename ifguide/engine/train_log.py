"""What a run tells: one line for people, one JSON object for machines, scalars for trackers if asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ifguide.engine.settings import TrainSettings
from ifguide.engine.tracking.trackers import Trackers
from ifguide.system.progress import clock, compact


class TrainingLog:
    """Log of the process that writes; the others construct it with ``writes=False`` and it stays silent."""

    def __init__(self, settings: TrainSettings, train_iters: int, first_iteration: int, writes: bool):
        self._writes = writes
        self._train_iters = train_iters
        self._stream = None
        self._trackers: Trackers | None = None
        if not writes:
            return
        if settings.save:
            path = Path(settings.save) / "train_log.jsonl"
            _forget_after(path, first_iteration - 1)
            self._stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close())
        self._trackers = Trackers(settings.keys, first_iteration)
        for note in self._trackers.notes:
            self.say(note)

    def say(self, text: str) -> None:
        """One line for people."""
        if self._writes:
            print(text, flush=True)

    def iteration(self, values: dict[str, Any], seconds_left: float) -> None:
        """One logged interval; ``values["iteration"]`` is its last iteration."""
        width = len(str(self._train_iters))
        line = f"iteration {values['iteration']:>{width}}/{self._train_iters}"
        for name, form in (
            ("lm_loss", "{:.4f}"), ("penalty_ce", "{:.4f}"), ("penalty_fraction", "{:.2%}"), ("objective", "{:.4f}"),
            ("forget", "{:.4f}"), ("retain", "{:.4f}"), ("reward_margin", "{:.4f}"), ("reward_accuracy", "{:.2%}"),
            ("adversarial", "{:.4f}"), ("discriminator_accuracy", "{:.2%}"),
            ("lr", "{:.3e}"), ("grad_norm", "{:.3f}"),
        ):  # fmt: skip
            if name in values:
                line += f" | {name} {form.format(values[name])}"
        self.say(f"{line} | {compact(values['tokens_per_second'])} tokens/s | ETA {clock(seconds_left)}")
        self._record(values, "train")

    def validation(self, values: dict[str, Any]) -> None:
        """One evaluation of the plain cross-entropy."""
        self.say(
            f"iteration {values['iteration']} | {values['split']} lm_loss {values['lm_loss']:.4f} | "
            f"perplexity {values['perplexity']:.2f} | {compact(values['tokens'])} tokens"
        )
        self._record(values, values["split"])

    def _record(self, values: dict[str, Any], group: str) -> None:
        if self._stream:
            self._stream.write(json.dumps({"time": round(time.time(), 3), **values}, allow_nan=False) + "\n")
            self._stream.flush()
        if self._trackers:
            self._trackers.scalars(values, group)

    def close(self) -> None:
        if self._stream:
            self._stream.close()
        if self._trackers:
            self._trackers.close()


def _forget_after(path: Path, iteration: int) -> None:
    """Drop lines of iterations that a killed run had logged beyond its last checkpoint: they come again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue  # half a line of a killed run
        if value.get("iteration", 0) <= iteration:
            kept.append(line)
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
